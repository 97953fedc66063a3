"""Everything that stops the loop: signals, other processes, evaluations, disk errors, non-finite numbers and memory."""

import dataclasses
import errno
import os
import shutil
import signal

import jax
import numpy as np
import pytest
from train_runs import TRAINING, run

from ringrl.errors import Interrupted, RingRLError
from ringrl.training import agreement
from ringrl.training import loop as loop_module
from ringrl.training.array_store import ArrayWrite
from ringrl.training.checkpoint import Checkpointer
from ringrl.training.compilation import compile_train_step
from ringrl.training.interrupt import Interrupt
from ringrl.training.state import create_state

pytestmark = pytest.mark.usefixtures("compile_once")


def test_a_signal_is_heard_during_an_evaluation_which_is_made_up_for(toy_agent, batches, tmp_path, assert_same):
    agent, training = toy_agent(dropout_rate=0.3), dataclasses.replace(TRAINING, evaluate_every=4, save_every=0)
    before = signal.getsignal(signal.SIGTERM)
    evaluated, interrupt = [], Interrupt()

    def evaluate(params, step):
        if step == 8 and interrupt is not None:
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupt.requested
            raise Interrupted
        evaluated.append(step)
        return {"score": float(-abs(step - 8))}

    checkpointer = Checkpointer(tmp_path)
    options = {"checkpointer": checkpointer, "evaluate": evaluate}
    first = run(agent, create_state(agent, training, 0), batches, training, interrupt=interrupt, **options)
    assert (first.interrupted, first.preempted, first.steps) == (True, True, 8)
    assert signal.getsignal(signal.SIGTERM) == before
    assert (evaluated, checkpointer.load_metadata("last")["evaluation"]) == ([4], None)

    interrupt = None
    state, metadata = checkpointer.restore("last", like=create_state(agent, training, 0))
    second = run(agent, state, batches, training, resumed=metadata, **options)
    assert evaluated == [4, 8, 12, 16, 20], "as if nothing had happened"
    assert checkpointer.best() == (8, 0.0)
    straight = run(agent, create_state(agent, training, 0), batches, training)
    assert_same(second.state, straight.state)


def test_a_signal_while_the_last_checkpoint_is_written_is_heard_before_the_evaluation(
    toy_agent, batches, tmp_path, monkeypatch
):
    agent, checksums = toy_agent(), ArrayWrite.checksums

    def slow(self):
        os.kill(os.getpid(), signal.SIGUSR1)
        return checksums(self)

    monkeypatch.setattr(ArrayWrite, "checksums", slow)
    checkpointer, training = Checkpointer(tmp_path), dataclasses.replace(TRAINING, save_every=0)
    state = create_state(agent, training, 0)
    result = run(agent, state, batches, training, checkpointer=checkpointer, evaluate=lambda params, step: 1 / 0)
    assert (result.interrupted, result.preempted, result.steps) == (True, True, 20)
    assert checkpointer.steps() == [20]


def test_a_checkpoint_whose_folder_is_removed_as_it_is_written_is_one_line(toy_agent, batches, tmp_path, monkeypatch):
    agent, checksums = toy_agent(), ArrayWrite.checksums

    def remove(self):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return checksums(self)

    monkeypatch.setattr(ArrayWrite, "checksums", remove)
    with pytest.raises(RingRLError, match=r"checkpoint of step 10: its folder in .* was removed while it was written"):
        run(agent, create_state(agent, TRAINING, 0), batches, checkpointer=Checkpointer(tmp_path / "run"))


@pytest.mark.parametrize(("every", "saved"), [(0, [10, 20]), (12, [10, 12])])
def test_a_failed_evaluation_loses_nothing(toy_agent, batches, tmp_path, every, saved):
    agent, checkpointer = toy_agent(), Checkpointer(tmp_path)

    def evaluate(params, step):
        raise RingRLError("the environment gives NaN")

    training = dataclasses.replace(TRAINING, evaluate_every=every)
    with pytest.raises(RingRLError, match="gives NaN"):
        run(agent, create_state(agent, training, 0), batches, training, checkpointer=checkpointer, evaluate=evaluate)
    assert checkpointer.steps() == saved


@pytest.mark.parametrize("error", [None, "the loader's"])
def test_a_save_that_fails_ends_training_unless_something_else_did(
    toy_agent, batches, tmp_path, monkeypatch, caplog, error
):
    def fail(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def failing(start):
        for index, batch in enumerate(batches(start), start):
            if index == 13 and error is not None:
                raise RingRLError(error)
            yield batch

    monkeypatch.setattr(ArrayWrite, "checksums", fail)
    agent, checkpointer = toy_agent(), Checkpointer(tmp_path)
    state = create_state(agent, TRAINING, 0)
    with pytest.raises(RingRLError, match=error or "step 10 in .*no space left"):
        run(agent, state, failing, checkpointer=checkpointer)
    assert ("no space left" in caplog.text) == (error is not None)
    checkpointer.wait()
    assert checkpointer.steps() == []


def test_what_one_process_of_several_sees_stops_all(toy_agent, batches, monkeypatch):
    """The test simulates the other process, which received a signal during step 12."""
    agent, steps, asked = toy_agent(), [], []
    training = dataclasses.replace(TRAINING, steps=40, save_every=15)

    def counted(start):
        for index, batch in enumerate(batches(start), start):
            steps.append(index)
            yield batch

    def agree(*flags):
        asked.append((len(steps), flags))
        return len(steps) >= 12, len(steps) >= 12, False

    monkeypatch.setattr(loop_module.jax, "process_count", lambda: 2)
    monkeypatch.setattr(agreement, "agree_each", agree)
    monkeypatch.setattr(agreement, "agree_on_first", lambda wait: [10])
    result = run(agent, create_state(agent, training, 0), counted, training)
    assert (result.steps, result.interrupted, result.preempted) == (15, True, True)
    assert asked == [(1, (False,) * 3), (11, (False,) * 3), (15, (False,) * 3)]  # the last before the save


@pytest.mark.parametrize(("seconds", "wait"), [(0.01, 10), (0.3, 3), (1.5, 1), (60.0, 1)])
def test_processes_ask_each_other_once_a_second(monkeypatch, seconds, wait):
    now, told = [0.0], []
    monkeypatch.setattr(agreement.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(agreement.jax, "process_count", lambda: 2)
    monkeypatch.setattr(agreement, "agree_each", lambda *flags: flags)
    monkeypatch.setattr(agreement, "agree_on_first", lambda values: told.append(values) or [7])
    synchronizer = agreement.FlagSynchronizer(4)
    assert synchronizer.due(5)
    now[0] = 2 * seconds
    assert synchronizer.synchronize(6, True, False) == (True, False)
    assert told == [[wait]]
    assert not synchronizer.due(12)  # according to process 0
    assert synchronizer.due(13)


def test_flags_of_all_processes_are_joined(monkeypatch):
    assert agreement.agree_each(True, False) == (True, False)
    others = np.asarray([[0, 0, 1], [0, 1, 0]])
    monkeypatch.setattr(agreement.jax, "process_count", lambda: 3)
    monkeypatch.setattr(agreement.multihost_utils, "process_allgather", lambda mine: np.stack([mine, *others]))
    assert agreement.agree_each(False, False, False) == (False, True, True)
    monkeypatch.setattr(agreement.multihost_utils, "process_allgather", lambda mine: np.stack([mine, mine]))
    assert not agreement.agree_any(False)
    assert agreement.agree_any(True)


def test_skipped_steps_are_counted_and_training_goes_on(toy_agent, poisoned):
    agent = toy_agent()
    result = run(agent, create_state(agent, TRAINING, 0), poisoned({3, 4, 9}))
    assert int(result.state.skipped) == 3
    assert [step for step, loss in result.losses if not np.isfinite(loss)] == [4, 5, 10]
    assert np.isfinite(result.final_loss)


def test_steps_that_stay_bad_stop_training_and_the_checkpoint_stays_whole(toy_agent, poisoned, tmp_path):
    agent, checkpointer = toy_agent(), Checkpointer(tmp_path)
    training = dataclasses.replace(TRAINING, nonfinite_limit=3, save_every=5)
    with pytest.raises(
        RingRLError, match=r"not finite for 3 steps in a row, the last at step 9; lower .*learning_rate"
    ):
        run(agent, create_state(agent, training, 0), poisoned(set(range(6, 100))), training, checkpointer=checkpointer)
    state, metadata = checkpointer.restore(like=create_state(agent, training, 0))
    assert metadata["step"] == 5
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.params))


def test_too_few_batches_is_one_line(toy_agent, chain):
    with pytest.raises(RingRLError, match=r"ran out at step 2 of training.steps=20"):
        run(toy_agent(), create_state(toy_agent(), TRAINING, 0), lambda start: iter([chain(0), chain(1)]))


def test_a_chain_longer_than_memory_is_refused_before_it_runs(toy_agent, batches, monkeypatch):
    monkeypatch.setattr(loop_module, "compile_train_step", compile_train_step)
    state = create_state(toy_agent(), TRAINING, 0)
    monkeypatch.setattr("ringrl.training.device.available_bytes", lambda device, resident=0: 64)
    with pytest.raises(RingRLError, match=r"Chain longer than memory allows: .* chains of 5 steps needs .* GiB"):
        run(toy_agent(), state, batches)
