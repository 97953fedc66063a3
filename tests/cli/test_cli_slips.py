"""Slips on the command line: one line, the nearest valid name, exit code 2, and no folder left behind."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ringrl.cli.compose import find_conf_folder
from ringrl.cli.overrides import check_overrides, vocabulary


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], "Unknown command 'trian': did you mean 'train'?"),
        (["train", "agent.nam=at"], "Unknown key 'agent.nam': did you mean 'agent.name'?"),
        (["train", "learning_rate=1"], "did you mean 'training.optimizer.learning_rate'?"),
        (["train", "+chian.order=random"], "did you mean 'chain.order'?"),
        (["train", "~modle"], "did you mean 'model'?"),
        (["train", "trainig.steps=1,2", "-m"], "did you mean 'training.steps'?"),
        (["train", "agent=att"], "agent=att: did you mean 'at'? Choices: at, "),
        (["train", "-m", "agent=at,dtt"], "agent=dtt: did you mean 'dt'?"),
        (["train", "experiment=quikstart"], "did you mean 'quickstart'?"),
        (["train", "+experiment=quikstart"], "did you mean 'quickstart'?"),
        (["train", "experiment=null"], "experiment=null needs a choice: dark_key_to_door, "),
        (["train", "data=d4rl/pen_human"], "a Minari set is chosen by its id: data.name=D4RL/pen/human-v2."),
        (["train", "-m", "data=mujoco/ant_simple,pendulum"], "data.name=mujoco/ant/simple-v0."),
        (["train", "a"], "Cannot read 'a': write key=value"),
        (["train", "agent"], "write agent=CHOICE, one of at, bc, bc10, dt"),
        (["train", "agent="], "agent= needs a choice: at, bc, bc10, dt"),
        (["train", "name=my", "run"], "a value with spaces is quoted twice"),
        (["train", "data", "=", "dark_room"], "Cannot read 'data': write data=CHOICE"),
        (["train", "name=a]b"], "quote a value with spaces"),
        (["train", "--experiment", "dark_room"], "keys are written without dashes: experiment=dark_room."),
        (["train", "--training.steps=5"], "keys are written without dashes: training.steps=5."),
        (["train", "--multirn"], "Unknown flag --multirn: did you mean --multirun"),
        (["train", "--config-name", "x"], "--config-name is not for RingRL"),
        (["train", "--config-dir", "nowhere"], "--config-dir nowhere: there is no such folder."),
        (["train", "-m", "seed=0,1", "--cfg", "job"], "--multirun and --cfg do not go together"),
        (["train", "--cfg", "jobs"], "invalid choice: 'jobs'"),
        (["train", "--resolve"], "--resolve goes with --cfg job"),
        (["-m", "train", "seed=0"], "The command comes first: ringrl train -m"),
        (["train", "data.tasks=0,1"], "write a list as 'data.tasks=[0,1]'"),
        (["train", "data.tasks=0"], "a list is needed: 'data.tasks=[0]'"),
        (["train", "seed=0,1"], "several values are a sweep: add -m"),
        (["train", "data.name=dark_room"], "that is a choice of the group data: data=dark_room."),
        (["train", "collection=dark_room"], "is a group of `ringrl collect`, not of `ringrl train`: its groups are"),
        (["plan", "experiment=dark_room"], "a group of `ringrl train`, not of `ringrl plan`: give what it would set"),
        (["train", "hydra/launcher=jobib"], "did you mean 'joblib'? Choices: basic, joblib, submitit_local"),
        (["eval", "checkpoint="], "checkpoint= needs a value"),
        (["-sc", "install=powershell"], "install=bash"),
        (["eval", "evaluation.trails=3"], "did you mean 'evaluation.trials'?"),
        (["collect", "collection=darkroom"], "did you mean 'dark_room'?"),
        (["report", "run=[x]"], "did you mean 'runs'?"),
        (["train", "resume=nowhere"], "resume=nowhere: no config.yaml there"),
        (["train", "-m", "resume=nowhere"], "leave -m out"),
    ],
)
def test_slips_before_composition(ringrl, tmp_path: Path, words: list[str], expected: str) -> None:
    assert expected in ringrl(*words).error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "data=dark_room", "training.steps=many"], "training.steps=many"),
        (["train", "data=dark_room", "agent.name=xx"], "[at, dt, bc, bc10]"),
        (["train", "data=dark_room", "training.steps=0"], "training.steps"),
        (["train", "data=dark_room", "model.heads=3"], "model.width=64 is not divisible by model.heads=3"),
        (["train", "data=dark_room", "agent=dt", "chain.context=chain"], "chain.context=trial"),
        (["train", "data=dark_room", "name=a/b"], "a plain folder name"),
        (["train", "data=dark_room", "seed=-1"], "seed=-1: use 0 to 2147483647."),
        (["train", "data=dark_room", "evaluation.seed=-1"], "evaluation.seed=-1: use 0 to"),
        (["collect", "collection=dark_room", "seed=-1"], "seed=-1: use 0 to"),
        (["train", "data=dark_room", "model.layers=0"], "model.layers=0: use at least 1."),
        (["train", "data=dark_room", "model.heads=0"], "model.heads=0: use at least 1."),
        (["train", "data=dark_room", "training.save_every=-1"], "training.save_every=-1: use at least 0."),
        (["train", "data=dark_room", "training.optimizer.beta1=1"], "training.optimizer.beta1=1.0 is not in [0, 1)"),
        (["train", "data=dark_room"], "`ringrl collect collection=dark_room` makes it"),
        (["train", "data.name=D4RL/pen/human-v2"], "data.download=true fetches it"),
        (
            ["train", "data=dark_room", "hydra.run.dir=/proc/nowhere/x"],
            "/proc/nowhere: there is no such file",
        ),
        (["bench", "attn"], "benchmark=attn: Invalid value 'attn', expected one of [attention]"),
        (["import"], "source is needed: give source=d4rl or exorl or minari."),
        (["eval"], "checkpoint is needed: give checkpoint="),
        (["eval", "checkpoint=nowhere"], "nowhere"),
        (["collect"], "dataset is needed"),
        (["collect", "dataset=x/y-v0"], "env.id is needed"),
        (["collect", "collection=dark_room", "behavior.graded.quality=2"], "quality=2.0 is not in [0, 1]"),
        (["collect", "collection=dark_room", "~behavior.detour"], "names no policy"),
        (["report"], "No run in runs/train/run"),
        (["report", "runs=[nowhere]"], "nowhere does not exist"),
        (["train", "hydra.launchr=1"], "hydra.launchr"),
    ],
)
def test_faults_after_composition(ringrl, words: list[str], expected: str) -> None:
    assert expected in ringrl(*words).error


def test_slips_in_a_users_own_yaml(ringrl, tmp_path: Path) -> None:
    own = tmp_path / "own" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# @package _global_\ntraining:\n  stepps: 3\n")
    outcome = ringrl("train", "--config-dir", str(tmp_path / "own"), "experiment=mine", "data=dark_room")
    assert "training.stepps" in outcome.error
    assert "experiment/mine" in outcome.error
    assert "did you mean 'training.steps'" in outcome.error


def test_a_users_own_yaml_says_that_it_is_of_the_whole_configuration(ringrl, tmp_path: Path) -> None:
    own = tmp_path / "own" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("training:\n  steps: 3\n")
    outcome = ringrl("train", "--config-dir", str(tmp_path / "own"), "experiment=mine")
    assert f"{own / 'mine.yaml'}: make its first line `# @package _global_`" in outcome.error


def test_users_own_yaml_takes_the_place_of_a_row(ringrl, tmp_path: Path) -> None:
    own = tmp_path / "own" / "env"
    own.mkdir(parents=True)
    (own / "kitchen.yaml").write_text("id: mine/Kitchen-v0\n")
    for words, kept in ((["--config-dir", str(tmp_path / "own")], False), ([], True)):
        outcome = ringrl("collect", *words, "dataset=a/b-v0", "env=kitchen", "--cfg", "job")
        assert ("tasks_to_complete" in outcome.out, "mine/Kitchen-v0" in outcome.out) == (kept, not kept), outcome.err
        assert outcome.err == ""


def test_users_own_yaml_is_found(ringrl, tmp_path: Path) -> None:
    own = tmp_path / "own" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# @package _global_\ntraining:\n  steps: 3\n")
    outcome = ringrl("train", "--config-dir", str(tmp_path / "own"), "experiment=mine", "--cfg", "job")
    assert outcome.code == 0
    assert "steps: 3" in outcome.out


def test_failed_jobs_of_a_sweep_do_not_stop_the_others(ringrl, tmp_path: Path) -> None:
    outcome = ringrl("train", "-m", "data=dark_room", "model.heads=3,4,5")
    lines = [line for line in outcome.err.splitlines() if line.startswith("ringrl: error: ")]
    assert outcome.code == 2
    assert len(lines) == 3, "one line per job"
    assert "heads=3" in lines[0]
    assert "is not in" in lines[1], "the second got as far as looking for its data"
    assert "job model.heads=5" in lines[2].replace("data=dark_room ", "")


def test_debug_shows_the_traceback(ringrl) -> None:
    outcome = ringrl("train", "data=dark_room", "model.heads=3", "--debug")
    assert outcome.code == 2
    assert "Traceback" in outcome.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--help"], "ringrl COMMAND"),
        ([], "ringrl COMMAND"),
        (["--version"], "ringrl 0."),
        (["train", "--help"], "at, bc, bc10, dt"),
        (["train", "+training.steps=7", "--cfg", "job"], "steps: 7"),
        (["train", "experiment=quickstart_smoke", "--cfg", "job"], "name: quickstart_smoke"),
        (["train", "+experiment=quickstart_smoke", "agent=bc", "--cfg", "job"], "batch_size: 16"),
        (["train", "~experiment", "--cfg", "job"], "name: run"),
        (["collect", "collection=pendulum", "env.kwargs={size:5,name:a}", "--cfg", "job"], "size: 5"),
        (["train", "-sc", "install=bash"], "complete -o nospace"),
        (["train", "--cfg", "job", "agent=dt"], "window_steps: 20"),
        (["eval", "--cfg", "job", "checkpoint=x", "video=true"], "video: true"),
        (["train", "--cfg", "hydra"], "runs/${hydra.job.name}/${name}/"),
        (["collect", "--cfg", "job", "collection=pendulum", "env.kwargs.g=5", "~behavior.graded"], "g: 5"),
        (["collect", "--cfg", "job", "behavior.extra.kind=random"], "extra:"),
    ],
)
def test_what_only_prints(ringrl, tmp_path: Path, words: list[str], expected: str) -> None:
    outcome = ringrl(*words)
    assert outcome.code == 0, outcome.err
    assert expected in outcome.out
    assert not list(tmp_path.iterdir())


def test_as_a_program(tmp_path: Path) -> None:
    """Exit code and line through a real process, started from a folder that is no checkout."""
    command = [sys.executable, "-m", "ringrl.cli", "train", "agent=att"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("ringrl: error: agent=att: did you mean 'at'?")
    assert done.stdout == ""


def test_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ringrl", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ringrl 0.")


def test_help_does_not_load_the_heavy_packages() -> None:
    program = (
        "import sys; from ringrl.cli.__main__ import main; main(['--help']); "
        "print([m for m in ('jax', 'gymnasium', 'hydra', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("value", ["o'n", 'say "a, b"', "a=b", "[x", "back\\slash]"])
def test_a_value_that_needs_quotes_is_refused_with_a_word_that_pastes(ringrl, value: str) -> None:
    error = ringrl("train", f"label={value}").error
    [word] = shlex.split(error[error.index("for Hydra: ") + len("for Hydra: ") : -1])
    [override] = check_overrides([word], vocabulary("train", [find_conf_folder()]))
    assert override.value() == value


def test_a_list_of_folders_that_need_quotes_is_refused_with_a_list(ringrl) -> None:
    error = ringrl("report", "runs=[o'n one,b]").error
    [word] = shlex.split(error[error.index("for Hydra: ") + len("for Hydra: ") : -1])
    [override] = check_overrides([word], vocabulary("report", [find_conf_folder()]))
    assert override.value() == ["o'n one", "b"]
