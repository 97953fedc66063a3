"""Run folders on the command line: existing results are kept, and a resumed run is the same run."""

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ringrl.cli.overrides import normalize_overrides, quote_value
from ringrl.cli.run_folder import hold_folder, resumes_run
from ringrl.config import TrainCommand
from ringrl.data import EpisodeStoreWriter
from ringrl.errors import RingRLError
from ringrl.training.run_history import read_losses
from ringrl.types import ActionKind, ActionSpec

SMALL = (
    *("chain.trajectories=2", "training.batch_size=2", "model.layers=1", "model.width=16", "model.heads=2"),
    *("training.log_every=1", "training.evaluate_every=2", "training.optimizer.warmup_steps=1"),
    *("evaluation.trials=1", "evaluation.environments=2", "evaluation.bootstrap_samples=40", "env.id=CartPole-v1"),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes as long as a poor CartPole's."""
    path, generator = tmp_path_factory.mktemp("data") / "cart_pole", np.random.default_rng(0)
    with EpisodeStoreWriter(path, 4, ActionSpec(ActionKind.discrete, 2)) as writer:
        for _ in range(8):
            observations = generator.normal(size=(10, 4)).astype(np.float32)
            writer.append(observations, generator.integers(0, 2, 10), np.ones(10))
        writer.finish()
    return path


@pytest.fixture
def train(ringrl, store: Path):
    """`train("hydra.run.dir=run", ...)` trains on these episodes."""
    return lambda *words: ringrl("train", "data=store", f"data.name={store}", *SMALL, *words)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".log" and path.name != ".lock"
    }


@pytest.mark.scale
def test_a_run_is_neither_replaced_nor_relabeled(train, ringrl, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("hydra.run.dir=run", "training.steps=3")
    assert train(*words).code == 0
    before = contents(run)
    assert {"config.yaml", "losses.csv", "evaluations.csv", "curves.png", ".hydra/overrides.yaml"} <= set(before)

    assert "has a run already: give resume=auto" in train(*words).error
    said = train(*words, "resume=auto", "training.optimizer.learning_rate=1e-4").error
    assert "training.optimizer.learning_rate was 0.001, is 0.0001" in said
    said = ringrl("eval", "checkpoint=run", "hydra.run.dir=run").error
    assert "results of `ringrl train`, which `ringrl eval` would replace" in said
    finished = train(*words, "resume=auto", "label=other")
    assert (finished.code, "finished already" in finished.out) == (0, True)
    assert contents(run) == before

    assert train(*words, "overwrite=true", "training.steps=1").code == 0
    assert read_losses(run).keys() == {1}
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_00000001"]
    assert json.loads((run / "summary.json").read_text())["train"]["steps"] == 1


@pytest.mark.simulators
def test_changes_on_request_are_on_record_and_history_is_whole(train, ringrl, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train("hydra.run.dir=run", "training.steps=2").code == 0
    longer = train("hydra.run.dir=run", "training.steps=4", "resume=auto", "resume_changes=record")
    assert longer.code == 0, longer.err
    assert "from step 3 on: training.steps was 2, is 4" in longer.out
    assert "the learning rate of step 3 was 0 (its schedule has ended), is 0.0005" in longer.out
    changes = [{"step": 2, "key": "training.steps", "was": 2, "now": 4}]
    assert json.loads((run / "config_changes.json").read_text()) == changes
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["config_changes"], summary["config"]["training"]["steps"]) == (changes, 4)
    metadata = json.loads((run / "checkpoints" / "step_00000004" / "metadata.json").read_text())
    assert (metadata["config_changes"], metadata["config"]["resume_changes"]) == (changes, "refuse")
    assert list(read_losses(run)) == [1, 2, 3, 4]
    steps = [line.split(",")[0] for line in (run / "evaluations.csv").read_text().splitlines()[1:]]
    assert steps == ["2", "4"]
    assert ringrl("train", "resume=run").code == 0, "and goes without asking from there"


@pytest.mark.simulators
def test_a_sweep_sent_again_with_other_values_relabels_nothing(train, tmp_path: Path) -> None:
    sweep = ("-m", "hydra.sweep.dir=sweep", "resume=auto", "training.steps=1", "hydra.sweep.subdir=${hydra.job.num}")
    assert train(*sweep, "training.optimizer.learning_rate=1e-2").code == 0
    before = contents(tmp_path / "sweep" / "0")
    again = train(*sweep, "training.optimizer.learning_rate=1e-4")
    assert again.code == 2
    assert "learning_rate was 0.01, is 0.0001" in again.err
    found = contents(tmp_path / "sweep" / "0")
    assert "learning_rate was 0.01" in found.pop("error.txt").decode()
    assert found == before
    once_more = train(*sweep, "training.optimizer.learning_rate=1e-2")
    assert once_more.code == 0, "what failed before is no failure of this"
    assert contents(tmp_path / "sweep" / "0") == before


@pytest.mark.simulators
@pytest.mark.parametrize("name", ["it's a=b [1] (ü), {x} # & 'q'"])
def test_a_folder_of_any_name_is_trained_in_and_resumed(train, ringrl, tmp_path: Path, name: str) -> None:
    assert train(f"hydra.run.dir={name}", "training.steps=1", "training.optimizer.schedule=constant").code == 0
    assert (tmp_path / name / "summary.json").exists()
    again = ringrl("train", f"resume={name}", "training.steps=2")
    assert again.code == 0, again.err
    assert list(read_losses(tmp_path / name)) == [1, 2]
    evaluated = ringrl("eval", f"checkpoint={name}", "evaluation.trials=1", f"hydra.run.dir={name} 2")
    assert evaluated.code == 0, evaluated.err


@pytest.mark.parametrize(
    "name", ["it's", "a b", "a=b", "[x]", "x,y", "{z}", "ü", "back\\", "back\\'", "a#b", "(c)", "'"]
)
def test_hydra_reads_the_very_name(name: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    for text in (normalize_overrides("train", [f"resume={name}"])[0], f"resume={quote_value(name)}"):
        [override] = OverridesParser.create().parse_overrides([text])
        value = override.value()
        assert OmegaConf.create({"value": getattr(value, "text", value)}).value == name


def test_quotes_interpolations_and_sweeps_of_the_users_own_stay() -> None:
    for text in ("resume='a b'", 'hydra.run.dir="a b"', "hydra.run.dir=runs/${name}", "resume=auto", "checkpoint=a,b"):
        assert normalize_overrides("train", [text]) == [text]


def test_a_signal_before_the_first_step_asks_for_the_queue(tmp_path: Path, store: Path) -> None:
    """While data are read, or the step is compiled: in the middle of a call that hears no signal."""
    program = (
        "import ctypes, sys, ringrl.cli.session as session\n"
        "from ringrl.cli.__main__ import main\n"
        "def read(*_, **__):\n"
        "    print('reading', flush=True)\n"
        "    ctypes.CDLL(None).sleep(600)\n"
        "session.open_dataset = read\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ("train", "data=store", f"data.name={store}", "hydra.run.dir=run")
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75, err
    assert "preempted: SIGTERM while there was nothing to save" in err


def test_beginning_anew_and_going_on_exclude_each_other() -> None:
    with pytest.raises(RingRLError, match="exclude each other"):
        TrainCommand(resume="auto", overwrite=True)


def test_results_belong_to_the_command_that_left_them(tmp_path: Path) -> None:
    with hold_folder(tmp_path, "eval"):
        (tmp_path / "summary.json").write_text("{}")
    others = pytest.raises(RingRLError, match="results of `ringrl eval`, which `ringrl collect` would")
    with others, hold_folder(tmp_path, "collect"):
        pytest.fail("it is another's")
    taken = pytest.raises(RingRLError, match="in use by `ringrl eval`")
    with hold_folder(tmp_path, "eval"), taken, hold_folder(tmp_path, "eval"):
        pytest.fail("it is held")
    with pytest.raises(RingRLError, match="has a run already"):
        resumes_run(TrainCommand(), tmp_path)


def test_a_job_that_slurm_has_queued_again_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints" / "step_00000003").mkdir(parents=True)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    with pytest.raises(RingRLError, match="resume=auto"):
        resumes_run(TrainCommand(), tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert resumes_run(TrainCommand(), tmp_path)
    assert not resumes_run(TrainCommand(overwrite=True), tmp_path / "new")


def test_what_to_type_to_go_on_pastes(tmp_path: Path) -> None:
    from ringrl.cli.continuing import format_resume_command

    line = format_resume_command(Path("/data/it's a run"))
    assert shlex.split(line) == ["ringrl", "train", "resume=/data/it's a run"]
    assert re.fullmatch(r"ringrl train resume=\S+", format_resume_command(tmp_path))
