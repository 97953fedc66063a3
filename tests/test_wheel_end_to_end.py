"""The installed wheel, in an empty folder: every command of the README, with a custom environment and custom data."""

import dataclasses
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.scale
ROOT = Path(__file__).resolve().parent.parent

SMALL = ("training.steps=3", "training.batch_size=2", "evaluation.trials=2", "evaluation.environments=2")

# The limit of 4 steps and the gain are the registration's; `goal` is what the user gives.
OWN_MODULE = '''
import gymnasium
import numpy as np


class Walk(gymnasium.Env):
    """A walk on a line: reward `gain` for every step at or beyond the goal."""

    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, goal=2, gain=1.0):
        self.goal, self.gain = goal, gain

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return np.array([self.place], np.float32), {}

    def step(self, action):
        self.place += 1 if action else -1
        reward = self.gain if self.place >= self.goal else 0.0
        return np.array([self.place], np.float32), reward, False, False, {}


gymnasium.register("Walk-v0", entry_point="my_lab:Walk", max_episode_steps=4, kwargs={"gain": 0.5})
'''

OWN_DATA = """
import os
import gymnasium
import numpy as np
import minari
import my_lab

env = minari.DataCollector(gymnasium.make("Walk-v0", goal=1))
generator = np.random.default_rng(0)
for episode in range(8):
    env.reset(seed=episode)
    done = False
    while not done:
        *_, terminated, truncated, _ = env.step(int(generator.random() < 0.7))
        done = terminated or truncated
env.create_dataset("mine/walk-v0", ref_min_score=0.0, ref_max_score=2.0)
"""


@dataclasses.dataclass(frozen=True)
class Newcomer:
    """A virtual environment with the wheel, and a working folder."""

    bin: Path
    folder: Path
    environment: dict[str, str]

    def start(self, *words: str) -> subprocess.Popen:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(words, cwd=self.folder, env=self.environment, **streams)

    def run(self, *words: str) -> str:
        """Run a command and return its output; fails unless it exits with 0."""
        process = self.start(str(self.bin / words[0]), *words[1:])
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, f"{shlex.join(words)}\n{out}\n{err}"
        return out


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory, compiled_programs: dict[str, str]) -> Newcomer:
    """The wheel alone is installed; what it depends on is borrowed from the interpreter that runs the tests."""
    base = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(base)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = base.glob("*.whl")
    venv = base / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, capture_output=True)
    python = venv / "bin" / "python"
    [site] = venv.glob("lib/python*/site-packages")
    # A path in a .pth file is searched, but .pth files in it are not read: an editable ringrl there stays unseen.
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*install, "--quiet", "--disable-pip-version-check", str(wheel)], check=True, capture_output=True)
    folder = base / "an empty folder"
    folder.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RINGRL", "MINARI"))}
    environment = {**kept, **compiled_programs, "RINGRL_DATA": str(base / "data"), "MUJOCO_GL": "disable"}
    return Newcomer(venv / "bin", folder, environment)


def summaries(newcomer: Newcomer, pattern: str) -> list[dict]:
    found = sorted(newcomer.folder.glob(f"runs/{pattern}/**/summary.json"))
    return [json.loads(file.read_text()) for file in found]


def test_what_runs_is_the_wheel(newcomer: Newcomer) -> None:
    printed = newcomer.run("python", "-c", "import ringrl, ringrl_envs; print(ringrl.__file__, ringrl_envs.__file__)")
    assert all(str(newcomer.bin.parent) in path for path in printed.split()), printed


def test_every_command_of_the_readme(newcomer: Newcomer) -> None:
    newcomer.run("ringrl", "collect", "collection=quickstart_smoke")
    assert "quickstart_smoke" in newcomer.run("ringrl", "data")
    assert "episodes" in newcomer.run("ringrl", "data", "data=quickstart_smoke")

    newcomer.run("ringrl", "train", "experiment=quickstart_smoke", "name=single", *SMALL)
    [single] = summaries(newcomer, "train/single")
    assert single["agent"] == "at"
    assert single["normalized"] is not None

    sweep = ("agent=dt,bc", "seed=0,1", "experiment=quickstart_smoke", "name=sweep", *SMALL)
    newcomer.run("ringrl", "train", "-m", *sweep)
    found = {(summary["agent"], summary["seed"]) for summary in summaries(newcomer, "train/sweep")}
    assert found == {("dt", 0), ("dt", 1), ("bc", 0), ("bc", 1)}
    table = newcomer.run("ringrl", "report", "name=sweep")
    assert "DT" in table
    assert "BC" in table

    [run] = newcomer.folder.glob("runs/train/single/*")
    newcomer.run("ringrl", "eval", f"checkpoint={run}", "name=again")
    [again] = summaries(newcomer, "eval/again")
    assert again["returns"] == single["returns"], "an evaluation takes its settings from the run"

    newcomer.run("ringrl", "plan", "model=7b", "target=a100x8", "search=context", "compile=false")
    [plan] = newcomer.folder.glob("runs/plan/**/plan.json")
    assert json.loads(plan.read_text())
    small = ("devices=[4]", "tokens=[128]", "heads=2", "head_size=8", "block_size=16", "repeats=1", "published=false")
    newcomer.run("ringrl", "bench", "attention", *small)
    [bench] = newcomer.folder.glob("runs/bench/**/bench.json")
    assert json.loads(bench.read_text())["problems"]


def printed_command(text: str, label: str) -> list[str]:
    """The command in a line such as "train on it: ringrl train ...", parsed as by a shell."""
    [line] = re.findall(rf"{label}:\s+(.*)", text)
    return shlex.split(line)


def in_two_processes(newcomer: Newcomer, words: Sequence[str]) -> None:
    """Run a command as two processes, which connect on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for index in range(2):
        several = f"distributed.coordinator=127.0.0.1:{port}", f"distributed.process_id={index}"
        command = str(newcomer.bin / words[0]), *words[1:], *several, "distributed.num_processes=2"
        started.append(newcomer.start(*command))
    try:
        for process in started:
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, f"{out}\n{err}"
    finally:
        for process in started:
            process.kill()


def test_an_environment_of_ones_own(newcomer: Newcomer) -> None:
    (newcomer.folder / "my_lab.py").write_text(OWN_MODULE)
    collect = (
        "ringrl",
        "collect",
        "env.id=my_lab:Walk-v0",
        "env.kwargs.goal=1",
        "behavior=random",
        "dataset=own/walk-v0",
    )
    printed = newcomer.run(*collect, "episodes_per_task=8", "num_environments=2", "reference_episodes=4")
    train = [*printed_command(printed, "train on it"), *SMALL, "chain.trajectories=2", "attention=ring", "mesh.ring=-1"]

    newcomer.run(*train, "name=own")
    [alone] = summaries(newcomer, "train/own")
    assert alone["environment"] == "Walk-v0"
    assert set(alone["config"]["env"]["kwargs"]) <= {"goal"}
    # Four steps of 0.5 or nothing: a limit of 4 steps, goal=1 and the registration's gain are all in force.
    for trials in alone["returns"]:
        assert all(value in (0.0, 0.5, 1.0, 1.5, 2.0) for value in trials)

    in_two_processes(newcomer, [*train, "name=both"])
    [both] = summaries(newcomer, "train/both")
    assert both["returns"] == alone["returns"]

    [run] = newcomer.folder.glob("runs/train/own/*")
    newcomer.run("ringrl", "eval", f"checkpoint={run}", "name=own")
    newcomer.run("ringrl", "eval", f"checkpoint={run}", "name=named", "env.id=my_lab:Walk-v0")
    for pattern in ("eval/own", "eval/named"):
        [again] = summaries(newcomer, pattern)
        assert again["returns"] == alone["returns"], "the recorded keyword arguments and limit are kept"
        assert again["references"] == alone["references"]


def test_a_data_set_of_ones_own(newcomer: Newcomer) -> None:
    (newcomer.folder / "my_lab.py").write_text(OWN_MODULE)
    (newcomer.folder / "make_data.py").write_text(OWN_DATA)
    minari = {"MINARI_DATASETS_PATH": str(newcomer.folder.parent / "data" / "minari")}
    owner = dataclasses.replace(newcomer, environment={**newcomer.environment, **minari})
    owner.run("python", "make_data.py")
    train = ("ringrl", "train", "data=minari", "data.name=mine/walk-v0", *SMALL, "chain.trajectories=2", "name=mine")
    newcomer.run(*train)
    [found] = summaries(newcomer, "train/mine")
    assert found["normalized"] is not None
    assert found["normalized"]["mean"]["value"] == pytest.approx(100 * found["mean"]["value"] / 2.0)
    [run] = newcomer.folder.glob("runs/train/mine/*")
    newcomer.run("ringrl", "eval", f"checkpoint={run}", "name=mine")
    [again] = summaries(newcomer, "eval/mine")
    assert again["returns"] == found["returns"]
    assert again["normalized"]["mean"] == found["normalized"]["mean"]
