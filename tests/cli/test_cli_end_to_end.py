"""The main job through the command line: collect, train, resume, evaluate, report, in a folder of its own."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

DATASET = "ringrl/end_to_end-v0"
COLLECT = (
    *("collect", "collection=dark_room", f"dataset={DATASET}", "env.kwargs.size=4", "env.kwargs.max_steps=6"),
    *("episodes_per_task=5", "num_environments=8", "reference_episodes=8"),
)
TRAIN = (
    *("train", "experiment=dark_room", f"data.name={DATASET}", "chain.trajectories=3", "training.batch_size=2"),
    *("training.log_every=1", "training.save_every=2", "evaluation.trials=3", "evaluation.environments=3"),
    *("evaluation.bootstrap_samples=50", "model.layers=1", "model.width=16", "model.heads=2"),
)
DT = ("agent=dt", "chain.trajectories=1", "training.batch_size=2")


def runs(folder: Path, command: str, name: str) -> list[Path]:
    return sorted((folder / "runs" / command / name).iterdir())


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def logged_steps(folder: Path) -> list[int]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [event.step for event in events.Scalars("train/loss")]


@pytest.fixture
def collected(ringrl, data_cache: Path) -> Path:
    """The folder of a small data set, collected once for all tests of this file."""
    folder = data_cache / "minari" / DATASET
    if not folder.exists():
        outcome = ringrl(*COLLECT)
        assert outcome.code == 0, outcome.err
    return folder


def test_the_main_job(ringrl, collected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(collected.parents[1]))
    dataset = minari.load_dataset(DATASET)
    assert dataset.total_episodes == 13 * 5, "a 4 x 4 grid keeps 3 of its 16 goals for evaluation"

    outcome = ringrl(*TRAIN, "training.steps=5")
    assert outcome.code == 0, outcome.err
    [run] = runs(tmp_path, "train", "dark_room")
    names = {file.name for file in run.iterdir()}
    assert {"config.yaml", "summary.json", "trials.csv", "trials.png", "curves.png", "checkpoints"} <= names
    summary = summary_of(run)
    assert summary["agent"] == "at"
    assert summary["environment"] == "ringrl/DarkRoom-v0"
    assert len(summary["trial_returns"]) == 3
    assert summary["train"]["steps"] == 5
    assert summary["normalized"] is not None
    assert np.isfinite(summary["train"]["final_loss"])
    assert summary["config"]["data"]["name"] == DATASET
    assert "return" in outcome.out
    assert str(run) in outcome.out

    assert logged_steps(run) == [1, 2, 3, 4, 5]
    events = EventAccumulator(str(run)).Reload()
    assert {"evaluation/last", "evaluation/normalized_last"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("final/normalized_last")] == [5], "at the last step"
    assert not [tag for tag in events.Tags()["scalars"] if tag.startswith("trials/")], "no chart an evaluation"
    assert run.name.endswith("_at_seed0"), "as TensorBoard names it"
    log = (run / "train.log").read_text()
    for words in ("loss", "evaluation at step 5", "run folder: ", "training step on", "best of 3"):
        assert words in log
    assert "orbax" not in log
    assert "absl" not in log

    # The checkpoint alone is enough to act: same parameters, same seed, same trials.
    # Trials and environments are those of the run unless told otherwise.
    outcome = ringrl("eval", f"checkpoint={run}", "video=true")
    assert outcome.code == 0, outcome.err
    [evaluation] = runs(tmp_path, "eval", "eval")
    assert (evaluation / "video.mp4").stat().st_size > 0
    again = summary_of(evaluation)
    assert again["returns"] == summary["returns"]
    assert again["references"] == summary["references"]
    assert again["config"]["eval"]["evaluation"]["environments"] == 3

    # Another environment than the data's is evaluated without the data's reference scores.
    outcome = ringrl(*TRAIN, *DT, "training.steps=2", "name=elsewhere", "env=dark_room_sparse")
    assert outcome.code == 0, outcome.err
    [elsewhere] = runs(tmp_path, "train", "elsewhere")
    assert summary_of(elsewhere)["normalized"] is None
    assert ringrl("eval", f"checkpoint={elsewhere}", "evaluation.environments=3", "name=elsewhere").code == 0
    assert summary_of(runs(tmp_path, "eval", "elsewhere")[0])["normalized"] is None

    outcome = ringrl(*TRAIN, *DT, "training.steps=2")
    assert outcome.code == 0, outcome.err
    outcome = ringrl("report", "runs=[runs/train/dark_room]")
    assert outcome.code == 0, outcome.err
    assert "AT" in outcome.out
    assert "DT" in outcome.out
    [report] = runs(tmp_path, "report", "run")
    assert {"table.md", "table.csv", "figure.png"} <= {file.name for file in report.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}, "nothing is written outside the run folders"


@pytest.mark.simulators
def test_resume_gives_the_same_losses(ringrl, collected: Path, tmp_path: Path) -> None:
    short = (*TRAIN, "training.optimizer.schedule=constant", "evaluation.trials=1")
    assert ringrl(*short, "name=whole", "training.steps=4").code == 0
    assert ringrl(*short, "name=parts", "training.steps=3").code == 0
    [whole], [parts] = runs(tmp_path, "train", "whole"), runs(tmp_path, "train", "parts")
    shutil.rmtree(parts / "checkpoints" / "step_00000003")  # as if it had died after step 3 without saving
    outcome = ringrl("train", f"resume={parts}", "training.steps=4")
    assert outcome.code == 0, outcome.err
    assert logged_steps(parts) == [1, 2, 3, 4], "what the run had logged of step 3 is hidden"
    assert runs(tmp_path, "train", "parts") == [parts], "it goes on in the same folder"
    assert not (tmp_path / "runs" / "train" / "run").exists()
    assert summary_of(parts)["train"]["steps"] == 4
    assert summary_of(parts)["train"]["final_loss"] == summary_of(whole)["train"]["final_loss"]
    assert summary_of(parts)["returns"] == summary_of(whole)["returns"]

    assert "model.width was 16, is 32" in ringrl("train", f"resume={parts}", "model.width=32").error
    assert "agent=dt: resume=RUN keeps" in ringrl("train", f"resume={parts}", "agent=dt").error

    # A damaged last checkpoint: the one before is used, and said so.
    last = sorted((parts / "checkpoints").iterdir())[-1]
    (last / "metadata.json").write_text("{")
    outcome = ringrl("eval", f"checkpoint={parts}", "evaluation.trials=1", "evaluation.environments=1")
    assert outcome.code == 0, outcome.err
    assert f"{last.name} is damaged" in outcome.out
    shutil.rmtree(parts / "checkpoints")
    assert "No checkpoint in" in ringrl("eval", f"checkpoint={parts}").error


@pytest.mark.simulators
def test_ctrl_c_saves_and_says_how_to_go_on(ringrl, collected: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ringrl.cli", *TRAIN, "training.steps=1000000", "training.save_every=1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and not list(tmp_path.glob("runs/train/*/*/checkpoints/step_*")):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    [run] = runs(tmp_path, "train", "dark_room")
    step = int(sorted((run / "checkpoints").glob("step_*"))[-1].name.removeprefix("step_"))
    assert f"ringrl: stopped and saved at step {step}; `ringrl train resume={run}` goes on." in err
    assert "Traceback" not in err
    outcome = ringrl("train", f"resume={run}", f"training.steps={step + 1}", "resume_changes=record")
    assert outcome.code == 0, outcome.err
    assert summary_of(run)["train"]["steps"] == step + 1


@pytest.mark.simulators
def test_a_sweep_and_its_report(ringrl, collected: Path, tmp_path: Path) -> None:
    smallest = (f"data.name={DATASET}", "training.steps=1", "model.layers=1", "model.width=16", "model.heads=2")
    outcome = ringrl("train", "-m", "seed=0,1", "agent=at,dt", "experiment=quickstart_smoke", *smallest)
    assert outcome.code == 0, outcome.err
    [sweep] = runs(tmp_path, "train", "quickstart_smoke")
    jobs = [summary_of(sweep / name) for name in ("at_seed0", "dt_seed0", "at_seed1", "dt_seed1")]
    assert outcome.out.count("AT - DT") == 1, "the sweep ends with its table"
    assert {"table.md", "table.csv", "figure.png"} <= {file.name for file in sweep.iterdir()}
    assert [(job["seed"], job["agent"]) for job in jobs] == [(0, "at"), (0, "dt"), (1, "at"), (1, "dt")]
    assert [len(job["trial_returns"]) for job in jobs] == [3] * 4, "DT is given the same trials"
    outcome = ringrl("report", "name=quickstart_smoke")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("2 seeds") == 2


def test_what_does_not_fit(ringrl, collected: Path, tmp_path: Path) -> None:
    assert "chain.trajectories=9" in ringrl(*TRAIN, "chain.trajectories=9").error
    assert "Unknown environment 'Pendulm-v1': did you mean Pendulum-v1" in ringrl(*TRAIN, "env.id=Pendulm-v1").error
    assert "Pendulum-v1 gives observations of size 3" in ringrl(*TRAIN, "env.id=Pendulum-v1").error
    assert "actions of size 3" in ringrl(*TRAIN, "env.id=MountainCar-v0").error
    assert "is not in" in ringrl(*TRAIN, "data.name=ringrl/nothing-v0").error
    assert "not a Minari id" in ringrl(*TRAIN, "data.name=nothing").error
    too_short = ("evaluation.context_steps=5", "evaluation.when_full=stop")
    assert "evaluation.context_steps=5 is less than an episode (6 steps)" in ringrl(*TRAIN, *too_short).error
    assert "Model larger than memory allows" in ringrl(*TRAIN, "model.layers=80", "model.width=16384").error
    assert "colour" in ringrl(*TRAIN, "env.id=ringrl/DarkRoom-v0", "env.kwargs.colour=red").error
    assert not list(tmp_path.glob("runs/train/*/*/checkpoints")), "all of it is refused before training"


def test_collect_keeps_what_is_there(ringrl, collected: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in collected.rglob("*"))
    assert "overwrite=true" in ringrl(*COLLECT).error
    assert "collected with seed=0, not 5" in ringrl(*COLLECT, "reuse=true", "seed=5").error
    assert ringrl(*COLLECT, "reuse=true").code == 0
    assert sorted((path, path.stat().st_mtime_ns) for path in collected.rglob("*")) == before


@pytest.mark.scale
def test_collect_from_a_mix_with_a_trained_agent(ringrl, collected: Path, tmp_path: Path) -> None:
    assert ringrl(*TRAIN, "training.steps=1", "name=teacher").code == 0
    [run] = runs(tmp_path, "train", "teacher")
    mix = ("behavior=mixed", "behavior.trained.kind=checkpoint", f"behavior.trained.checkpoint={run}")
    outcome = ringrl(*COLLECT, "dataset=ringrl/mixed-v0", *mix, "behavior.trained.weight=10")
    assert outcome.code == 0, outcome.err
    collection = runs(tmp_path, "collect", "collect")[-1]  # after that of `collected`, if this test made it
    policies = summary_of(collection)["policies"]
    assert sum(policy["episodes"] for policy in policies.values()) == 65
    assert {"random", "trained"} <= set(policies)
    assert "Unknown environment" in ringrl("collect", "dataset=ringrl/x-v0", "env.id=Nothing-v0").error
    assert "no scripted controller" in ringrl("collect", "dataset=ringrl/x-v0", "env.id=CartPole-v1").error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("attention=ring", "mesh.ring=64"), "needs 64 devices"),
        (("mesh.ring=2",), "choose attention=ring, ulysses or hybrid"),
        (("attention=ulysses", "mesh.head=4"), "do not divide among 4"),
        (("attention=ring", "mesh.data=4"), "does not divide among mesh.data x mesh.fsdp = 4"),
    ],
)
def test_an_impossible_mesh_is_one_line(ringrl, collected: Path, words: tuple[str, ...], message: str) -> None:
    assert message in ringrl(*TRAIN, "training.steps=2", *words).error


def test_the_mesh_is_explained_and_nothing_trained(ringrl, collected: Path) -> None:
    outcome = ringrl(*TRAIN, "attention=ring", "mesh.ring=4", "mesh.explain=true", "hydra.run.dir=explained")
    assert outcome.code == 0, outcome.err
    assert "params/transformer/layers/query/kernel" in outcome.out
    assert "dimension 1: ring" in outcome.out
    assert "bytes on each of 4 devices" in outcome.out
    assert not Path("explained/checkpoints").exists()


@pytest.mark.scale
def test_auto_resume_starts_a_run_and_goes_on_with_it(ringrl, collected: Path) -> None:
    words = (*TRAIN, "resume=auto", "training.optimizer.schedule=constant")
    assert "resume=auto needs hydra.run.dir" in ringrl(*words).error
    for steps in (1, 2):
        outcome = ringrl(*words, "hydra.run.dir=again", f"training.steps={steps}")
        assert outcome.code == 0, outcome.err
    assert logged_steps(Path("again")) == [1, 2]
    assert "model.width was" in ringrl(*words, "hydra.run.dir=again", "training.steps=3", "model.width=32").error
