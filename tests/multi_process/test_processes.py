"""Runs of several processes on this machine, through the command line.

They have the losses of one process, and end correctly when one process is killed or signaled.
"""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = pytest.mark.scale

DEVICES = 2  # of each process
COMMON = (
    "experiment=quickstart_smoke",
    "model.attention_dropout=0.1",
    "attention=ring",
    "attention.layout=zigzag",
    "attention.query_block_size=32",
    "attention.key_block_size=32",
    "training.log_every=1",
)
LONG = ("training.steps=2000", "training.save_every=10", "training.optimizer.schedule=constant")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data cache with the smallest quickstart's episodes."""
    folder = tmp_path_factory.mktemp("data")
    command = [sys.executable, "-m", "ringrl.cli", "collect", "collection=quickstart_smoke"]
    environment = {**os.environ, "RINGRL_DATA": str(folder)}
    subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)
    return folder


@dataclasses.dataclass
class Processes:
    """The processes of one run, and their output."""

    started: list[subprocess.Popen]
    logs: list[Path]

    def wait(self, seconds: float = 240) -> list[int]:
        """Their exit codes."""
        end = time.monotonic() + seconds
        return [process.wait(max(end - time.monotonic(), 0.1)) for process in self.started]

    def said(self) -> str:
        return "\n".join(f"--- process {index}\n{log.read_text()}" for index, log in enumerate(self.logs))


@pytest.fixture
def start(tmp_path: Path, data: Path, compiled_programs: dict[str, str]):
    """`start(processes, *words)`: the same command in each, in a new folder; what is left is killed at the end."""
    groups: list[Processes] = []

    def begin(count: int, *words: str, devices: int = DEVICES, each: Sequence[Sequence[str]] = ()) -> Processes:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {**os.environ, "RINGRL_DATA": str(data), "JAX_NUM_CPU_DEVICES": str(devices)}
        environment |= {"PYTHONUNBUFFERED": "1", **compiled_programs}
        group = Processes([], [])
        groups.append(group)
        for index in range(count):
            several = (
                f"distributed.coordinator=127.0.0.1:{port}",
                f"distributed.process_id={index}",
                f"distributed.num_processes={count}",
            )
            command = [sys.executable, "-m", "ringrl.cli", *words, *(several if count > 1 else ())]
            command += each[index] if each else ()
            log = tmp_path / f"log_{len(groups)}_{index}.txt"
            with log.open("w") as file:
                process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=file, stderr=file)
            group.started.append(process)
            group.logs.append(log)
        return group

    yield begin
    for group in groups:
        for process in group.started:
            process.kill()
            process.wait()


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def losses(folder: Path) -> dict[int, float]:
    """By step, as TensorBoard shows them."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {event.step: event.value for event in events.Scalars("train/loss")}


def until(condition: Callable[[], bool], group: Processes, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, group.said()
        assert all(process.poll() is None for process in group.started), group.said()
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("processes", "mesh"),
    [(2, ("mesh.fsdp=2", "mesh.ring=2")), (4, ("mesh.data=2", "mesh.ring=-1"))],
    ids=["2 x 2 devices", "4 x 2 devices"],
)
def test_losses_and_trials_are_those_of_one_process(start, tmp_path: Path, processes: int, mesh) -> None:
    words = ("train", *COMMON, *mesh, "training.evaluate_every=5", "evaluation.sharded=true")
    alone = start(1, *words, "hydra.run.dir=alone", devices=processes * DEVICES)
    assert alone.wait() == [0], alone.said()
    together = start(processes, *words, "hydra.run.dir=together")
    assert together.wait() == [0] * processes, together.said()
    one, several = losses(tmp_path / "alone"), losses(tmp_path / "together")
    assert list(one) == list(several) == list(range(1, 11))
    for step, loss in one.items():
        assert several[step] == pytest.approx(loss, rel=1e-5)
    assert summary(tmp_path / "together")["trial_returns"] == summary(tmp_path / "alone")["trial_returns"]
    # Process 0 alone writes: one log, one file of events, and no folder but the run's.
    assert len(list((tmp_path / "together").glob("events*"))) == 1
    assert not (tmp_path / "runs").exists()
    assert "run folder" in together.logs[0].read_text()
    assert "run folder" not in together.logs[1].read_text()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_and_the_same_command_goes_on(start, tmp_path: Path, victim: int) -> None:
    words = ("train", *COMMON, "mesh.ring=-1", "hydra.run.dir=run", "resume=auto")
    stopped = start(2, *words, *LONG)
    until(lambda: any((tmp_path / "run" / "checkpoints").glob("step_*")), stopped)
    survivor = 1 - victim
    assert stopped.started[survivor].poll() is None, stopped.said()
    stopped.started[victim].kill()
    began = time.monotonic()
    code = stopped.started[survivor].wait(60)
    assert time.monotonic() - began < 60
    said = stopped.logs[survivor].read_text()
    # The first symptom is a broken connection (exit code 75, with RingRL's message); or JAX's service or Gloo aborts
    # the process (134) with its own message, Gloo because its two devices become inconsistent.
    assert code in (75, -signal.SIGABRT), said
    assert code != 75 or "another process of this run has ended" in said
    saved = int(max((tmp_path / "run" / "checkpoints").glob("step_*")).name.removeprefix("step_"))

    again = start(2, *words, *LONG[1:], f"training.steps={saved + 5}")
    assert again.wait() == [0, 0], again.said()
    assert summary(tmp_path / "run")["train"]["steps"] == saved + 5
    assert max(losses(tmp_path / "run")) == saved + 5


def test_a_signal_to_one_process_saves_and_ends_all_with_the_code_for_the_queue(start, tmp_path: Path) -> None:
    words = ("train", *COMMON, "mesh.ring=-1", "hydra.run.dir=run", "resume=auto")
    group = start(2, *words, *LONG)
    checkpoints = tmp_path / "run" / "checkpoints"
    until(lambda: any(checkpoints.glob("step_*")), group)
    group.started[1].send_signal(signal.SIGTERM)
    assert group.wait(60) == [75, 75], group.said()
    assert "preempted: stopped and saved at step" in group.logs[0].read_text()
    step = int(group.logs[0].read_text().partition("saved at step ")[2].partition(";")[0])
    assert max(checkpoints.glob("step_*")).name == f"step_{step:08d}"
    assert not list(checkpoints.glob(".unfinished_*"))


def test_processes_that_were_told_different_things_do_not_train(start) -> None:
    words = ("train", *COMMON, "mesh.ring=-1", "hydra.run.dir=run")
    group = start(2, *words, each=(("seed=0",), ("seed=1",)))
    codes = group.wait(90)
    assert codes[1] == 2, group.said()
    assert codes[0] in (75, -signal.SIGABRT), group.said()
    assert "give all processes the same command and data" in group.logs[1].read_text()


def test_who_does_not_come_is_not_waited_for_for_ever(start) -> None:
    words = ("train", *COMMON, "mesh.ring=-1", "distributed.timeout_seconds=3", "distributed.num_processes=2")
    alone = start(1, *words, "distributed.coordinator=127.0.0.1:9", "distributed.process_id=1")
    assert alone.wait(60) == [2], alone.said()
    assert "did not find each other" in alone.said()


def test_an_environment_of_one_s_own_is_found_by_every_process(start, tmp_path: Path) -> None:
    source = (
        "import gymnasium, numpy as np",
        "class Line(gymnasium.Env):",
        "    observation_space = action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)",
        "    def __init__(self, scale=1.0): self.scale = scale",
        "    def reset(self, *, seed=None, options=None): return np.zeros(1, np.float32), {}",
        "    def step(self, action): return np.zeros(1, np.float32), self.scale, False, False, {}",
        "gymnasium.register('Line-v0', lambda **kwargs: Line(**kwargs), max_episode_steps=60)",
    )
    (tmp_path / "lines.py").write_text("\n".join(source))
    arguments = ("++env.kwargs.scale=2.0", "++env.kwargs.max_episode_steps=4")
    words = ("env.id=lines:Line-v0", *arguments, "dataset=mine/lines-v0", "behavior=random", "episodes_per_task=4")
    collected = start(1, "collect", *words, "num_environments=2", "overwrite=true")
    assert collected.wait() == [0], collected.said()
    words = ("train", "data=minari", "data.name=mine/lines-v0", "model=tiny", "chain.trajectories=2", "mesh.data=-1")
    words += ("training.steps=2", "training.batch_size=4", "evaluation.trials=2", "evaluation.environments=2")
    together = start(2, *words, "env.id=lines:Line-v0", "hydra.run.dir=run")
    assert together.wait() == [0, 0], together.said()
    found = summary(tmp_path / "run")
    assert found["trial_returns"] == [8.0, 8.0]  # with the recorded arguments and time limit
    assert found["environment"] == "Line-v0"
