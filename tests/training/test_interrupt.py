"""Signals: the first finishes the step and saves, a second Ctrl-C stops at once."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ringrl.training.checkpoint import Checkpointer
from ringrl.training.interrupt import Interrupt

CRASH_TEST = Path(__file__).resolve().parents[2] / "experiments" / "restart" / "run.py"
PROGRAM = """
    import dataclasses, os, signal, sys
    sys.path.insert(0, sys.argv[1])
    from conftest import ToyAgent, stream
    from ringrl.training.checkpoint import Checkpointer
    from ringrl.training.config import TrainingConfig
    from ringrl.training.loop import train
    from ringrl.training.state import create_state

    signals = [getattr(signal, name) for name in sys.argv[3].split()]

    def batches(start):
        for index, batch in enumerate(stream(start), start):
            if index == 5:
                for number in signals:
                    os.kill(os.getpid(), number)
            yield batch

    training = TrainingConfig(steps=1000, batch_size=8, save_every=3)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    agent = ToyAgent()
    result = train(agent, create_state(agent, training, 0), batches, training,
                   checkpointer=Checkpointer(sys.argv[2]), evaluate=lambda params, step: 1 / 0)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before
    print(result.interrupted, result.preempted, result.steps, len(result.losses))
"""


@pytest.mark.parametrize(
    ("signals", "preempted"),
    [("SIGINT", False), ("SIGTERM", True), pytest.param("SIGUSR1 SIGTERM SIGTERM", True, marks=pytest.mark.scale)],
)
def test_a_process_that_gets_a_signal_saves_and_says_which(tmp_path, signals, preempted):
    result = run_program(tmp_path, signals)
    assert result.stdout.split() == ["True", str(preempted), "6", "6"], result.stderr
    assert "stopping after this step and saving" in result.stderr
    assert result.stderr.startswith(f"\n{signals.split()[0]}:") or not preempted
    assert Checkpointer(tmp_path).load_metadata()["step"] == 6


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    result = run_program(tmp_path, "SIGINT SIGINT")
    assert "press Ctrl-C again to stop at once" in result.stderr
    assert "KeyboardInterrupt" in result.stderr
    assert result.stdout == ""
    assert Checkpointer(tmp_path).steps() == [3]


@pytest.mark.slow
def test_killed_runs_lose_nothing(tmp_path):
    output = tmp_path / "restart.json"
    command = [sys.executable, CRASH_TEST, "--kills", "3", "--steps", "40", "--output", output]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(output.read_text())
    assert found["kills"] == found["restarts"] == 3
    assert found["losses_compared"] >= 40
    for name in ("damaged_checkpoints", "lost_runs", "runs_unlike_the_uninterrupted"):
        assert found[name] == 0


def run_program(folder, signals):
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), os.path.dirname(__file__), str(folder), signals]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_previous_handler_comes_back():
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        assert not interrupt.requested
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_schedulers_signals_are_one_and_the_first_says_whose_it_was():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    with Interrupt() as interrupt:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
            assert (interrupt.requested, interrupt.preempted) == (True, True)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (interrupt.requested, interrupt.preempted) == (True, False)
