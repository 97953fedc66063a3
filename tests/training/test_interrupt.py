"""Ctrl-C: the first finishes the step and saves, the second stops at once."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from ringrl.training.checkpoint import Checkpointer
from ringrl.training.interrupt import Interrupt

PROGRAM = """
    import dataclasses, os, signal, sys
    sys.path.insert(0, sys.argv[1])
    from conftest import ToyAgent, stream
    from ringrl.training.checkpoint import Checkpointer
    from ringrl.training.config import TrainingConfig
    from ringrl.training.loop import train
    from ringrl.training.state import create_state

    signals = int(sys.argv[3])

    def batches(start):
        for index, batch in enumerate(stream(start), start):
            if index == 5:
                for _ in range(signals):
                    os.kill(os.getpid(), signal.SIGINT)
            yield batch

    training = TrainingConfig(steps=1000, batch_size=8, save_every=3)
    before = signal.getsignal(signal.SIGINT)
    agent = ToyAgent()
    result = train(agent, create_state(agent, training, 0), batches, training,
                   checkpointer=Checkpointer(sys.argv[2]), evaluate=lambda params, step: 1 / 0)
    assert signal.getsignal(signal.SIGINT) is before
    print(result.interrupted, result.steps, len(result.losses))
"""


@pytest.mark.parametrize("signals", [1, 2])
def test_interrupting_a_process(tmp_path, signals):
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), os.path.dirname(__file__), str(tmp_path), str(signals)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "press Ctrl-C again to stop at once" in result.stderr
    if signals == 1:
        assert result.stdout.split() == ["True", "6", "6"], result.stderr
        assert Checkpointer(tmp_path).load_metadata()["step"] == 6
    else:
        assert "KeyboardInterrupt" in result.stderr
        assert result.stdout == ""
        assert Checkpointer(tmp_path).steps() == [3]


def test_the_previous_handler_comes_back():
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        assert not interrupt.requested
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
