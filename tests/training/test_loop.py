"""The loop: resuming exactly, saving, evaluating, stopping."""

import dataclasses
import errno
import io
import os
import shutil
import signal
import threading

import jax
import numpy as np
import pytest
from rich.console import Console

from ringrl.errors import Interrupted, RingRLError
from ringrl.training import agreement
from ringrl.training import loop as loop_module
from ringrl.training import milestones as milestones_module
from ringrl.training.array_store import ArrayWrite
from ringrl.training.checkpoint import Checkpointer
from ringrl.training.config import OptimizerConfig, TrainingConfig
from ringrl.training.interrupt import Interrupt
from ringrl.training.loop import train
from ringrl.training.state import create_state
from ringrl.training.step import make_train_step

OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup_steps=5)
TRAINING = TrainingConfig(
    steps=20, batch_size=8, gradient_accumulation=2, log_every=5, save_every=10, optimizer=OPTIMIZER
)


@pytest.fixture(autouse=True)
def compile_once(monkeypatch):
    """One compilation for all runs of the same agent and configuration; the shapes are all alike."""
    monkeypatch.setattr(loop_module, "compile_train_step", _compiled)


_steps = {}


def _compiled(agent, training, state, batch, programs=None):
    key = (agent, training.steps, training.gradient_accumulation, training.optimizer)
    if key not in _steps:
        _steps[key] = loop_module_compile(agent, training, state, batch)
    return _steps[key]


loop_module_compile = loop_module.compile_train_step


class Recording:
    """A logger that remembers."""

    def __init__(self):
        self.seen = []
        self.histogram_steps = []

    def scalars(self, values, step):
        self.seen.append((step, dict(values)))

    def histograms(self, tree, step, prefix=""):
        self.histogram_steps.append((step, prefix))

    def flush(self):
        pass


def run(agent, state, batches, training=TRAINING, **options):
    return train(agent, state, batches, training, progress=False, **options)


def test_resuming_gives_bit_identical_losses_and_parameters(toy_agent, batches, tmp_path, assert_same):
    agent = toy_agent(dropout_rate=0.3)
    straight = run(agent, create_state(agent, TRAINING, 0), batches)
    assert [step for step, _ in straight.losses] == list(range(1, 21))
    assert straight.losses[-1][1] < straight.losses[0][1]

    class Crash(Exception):
        pass

    def crashing(start):
        for index, batch in enumerate(batches(start), start):
            if index == 13:
                raise Crash
            yield batch

    checkpointer = Checkpointer(tmp_path)
    with pytest.raises(Crash):
        run(agent, create_state(agent, TRAINING, 0), crashing, checkpointer=checkpointer)
    state, metadata = checkpointer.restore("last", like=create_state(agent, TRAINING, 77))
    assert metadata["data_position"] == metadata["step"] == 10
    resumed = run(agent, state, batches, checkpointer=checkpointer, resumed=metadata)
    assert resumed.losses == straight.losses[10:]
    assert_same(resumed.state, straight.state)
    assert resumed.tokens == straight.tokens == 20 * 8 * 5 * agent.tokens_per_step
    assert resumed.seconds > metadata["seconds"]


def test_metrics_one_step_late_equal_those_read_directly(toy_agent, batches):
    agent = toy_agent()
    training = dataclasses.replace(TRAINING, log_every=1, evaluate_every=7, histogram_every=8)
    logger = Recording()
    result = run(agent, create_state(agent, training, 0), batches, training, logger=logger, evaluate=lambda p, s: {})

    state, step, stream = create_state(agent, training, 0), make_train_step(agent, training), batches(0)
    for index in range(20):
        state, metrics = step(state, next(stream))
        assert result.losses[index] == (index + 1, float(metrics["loss"]))
        logged = dict(logger.seen[index + (index >= 7) + (index >= 14)][1])
        for name, value in metrics.items():
            assert logged[f"train/{name}"] == float(value)
    assert logger.histogram_steps == [(8, "parameters"), (16, "parameters")]


def test_logs_name_the_rates(toy_agent, batches):
    agent, logger = toy_agent(), Recording()
    run(agent, create_state(agent, TRAINING, 0), batches, logger=logger)
    assert [step for step, _ in logger.seen] == [5, 10, 15, 20]
    for _, values in logger.seen:
        rate = values["throughput/steps_per_second"]
        assert values["throughput/tokens_per_second"] == pytest.approx(rate * 80)
        assert values["throughput/model_flops_per_second"] == pytest.approx(rate * agent.train_flops(8, 5))
        assert 0.0 <= values["throughput/loader_wait"] <= 1.0
        assert "throughput/mfu" not in values  # a CPU's peak is unknown
        assert {"train/gradient_norm", "train/parameter_norm", "train/learning_rate"} <= values.keys()


def test_the_best_by_score_is_saved_where_it_was_reached(toy_agent, batches, tmp_path):
    agent, checkpointer, logger = toy_agent(), Checkpointer(tmp_path, keep_last=1), Recording()
    training = dataclasses.replace(TRAINING, evaluate_every=4, save_every=10)
    scores = {4: 1.0, 8: 3.0, 12: 2.0, 16: 0.0, 20: 2.5}
    kept = {}

    def evaluate(params, step):
        kept[step] = jax.device_get(params)
        return {"score": scores[step], "trials": 8}

    result = run(
        agent, create_state(agent, training, 0), batches, training, checkpointer=checkpointer, evaluate=evaluate,
        logger=logger, metadata={"name": "x"},
    )  # fmt: skip
    assert sorted(kept) == [4, 8, 12, 16, 20]
    assert result.evaluation == {"score": 2.5, "trials": 8.0}
    assert checkpointer.steps() == [8, 20]
    params, metadata = checkpointer.restore_parameters("best")
    np.testing.assert_array_equal(params["action"]["kernel"], kept[8]["action"]["kernel"])
    assert (metadata["metric"], metadata["evaluation"]["trials"], metadata["name"]) == (3.0, 8.0, "x")
    assert (8, {"evaluation/score": 3.0, "evaluation/trials": 8.0}) in logger.seen


def test_the_last_checkpoint_is_whole_before_the_evaluation_at_the_end(toy_agent, batches, tmp_path):
    agent, checkpointer, found = toy_agent(), Checkpointer(tmp_path), []

    def evaluate(params, step):
        another = Checkpointer(tmp_path)  # as one that looks from outside
        found.append((another.load_metadata(step)["evaluation"], another.best()))
        return {"score": 2.5, "last": 1.0}

    run(
        agent,
        create_state(agent, TRAINING, 0),
        batches,
        checkpointer=checkpointer,
        evaluate=evaluate,
        metadata={"a": 1},
    )
    assert found == [(None, None)]
    _, metadata = checkpointer.restore(20, like=create_state(agent, TRAINING, 0))
    assert (metadata["evaluation"], metadata["metric"], metadata["a"]) == ({"score": 2.5, "last": 1.0}, 2.5, 1)
    assert checkpointer.best() == (20, 2.5)


def test_what_was_logged_is_on_the_disk_before_a_checkpoint_is(toy_agent, batches, tmp_path, monkeypatch):
    """A run that is killed goes on from its checkpoint: what it logged before that is not logged again."""
    agent, told, saved = toy_agent(), [], []

    class Buffered(Recording):
        def scalars(self, values, step):
            told.append(("logged", step))

        def add_loss(self, step, loss):
            told.append(("lost", step))

        def flush(self):
            told.append("flushed")

    def save(self, step, *arguments, **options):
        saved.append((step, told[-1], len([1 for entry in told if entry[0] == "lost"])))

    monkeypatch.setattr(Checkpointer, "save", save)
    logger = Buffered()
    run(
        agent, create_state(agent, TRAINING, 0), batches, checkpointer=Checkpointer(tmp_path), logger=logger,
        history=logger,
    )  # fmt: skip
    assert saved == [(10, "flushed", 10), (20, "flushed", 20)]


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


def test_saving_by_the_clock_counts_from_the_last_save(toy_agent, batches, tmp_path, monkeypatch):
    """Half a minute a step; a checkpoint two minutes after the one before, whatever the reason for that."""
    agent, checkpointer = toy_agent(), Checkpointer(tmp_path, keep_last=100)
    minutes = [0.0]
    monkeypatch.setattr(milestones_module.time, "monotonic", lambda: 60 * minutes[0])

    def slow(start):
        for batch in batches(start):
            yield batch
            minutes[0] += 0.5

    training = dataclasses.replace(TRAINING, save_every=6, save_every_minutes=2)
    # A batch is asked for once more than there are steps done, so step k ends at (k - 1) / 2 minutes.
    run(agent, create_state(agent, training, 0), slow, training, checkpointer=checkpointer)
    assert checkpointer.steps() == [5, 6, 10, 12, 16, 18, 20]
    with pytest.raises(RingRLError, match="save_every_minutes"):
        dataclasses.replace(TRAINING, save_every_minutes=-1)


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
    """The other process, which got a signal during step 12, is played here."""
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
    lookout = agreement.Lookout(4)
    assert lookout.due(5)
    now[0] = 2 * seconds
    assert lookout.ask(6, True, False) == (True, False)
    assert told == [[wait]]
    assert not lookout.due(12)  # as process 0 said
    assert lookout.due(13)


def test_flags_of_all_processes_are_joined(monkeypatch):
    assert agreement.agree_each(True, False) == (True, False)
    others = np.asarray([[0, 0, 1], [0, 1, 0]])
    monkeypatch.setattr(agreement.jax, "process_count", lambda: 3)
    monkeypatch.setattr(agreement.multihost_utils, "process_allgather", lambda mine: np.stack([mine, *others]))
    assert agreement.agree_each(False, False, False) == (False, True, True)
    monkeypatch.setattr(agreement.multihost_utils, "process_allgather", lambda mine: np.stack([mine, mine]))
    assert not agreement.agree_any(False)
    assert agreement.agree_any(True)


def test_a_finished_run_that_is_resumed_evaluates_and_does_no_step(toy_agent, batches, tmp_path):
    agent, checkpointer = toy_agent(), Checkpointer(tmp_path)
    first = run(agent, create_state(agent, TRAINING, 0), batches, checkpointer=checkpointer)
    state, metadata = checkpointer.restore(like=first.state)
    again = run(
        agent, state, batches, checkpointer=checkpointer, resumed=metadata, evaluate=lambda params, step: {"score": 4}
    )
    assert (again.losses, again.final_loss, again.steps, again.tokens) == ([], None, 20, first.tokens)
    assert checkpointer.best() == (20, 4.0)


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
    monkeypatch.setattr(loop_module, "compile_train_step", loop_module_compile)
    state = create_state(toy_agent(), TRAINING, 0)
    monkeypatch.setattr("ringrl.training.device.available_bytes", lambda device, resident=0: 64)
    with pytest.raises(RingRLError, match=r"Chain longer than memory allows: .* chains of 5 steps needs .* GiB"):
        run(toy_agent(), state, batches)


def test_training_works_outside_the_main_thread(toy_agent, batches):
    results = []
    state = create_state(toy_agent(), TRAINING, 0)
    thread = threading.Thread(target=lambda: results.append(run(toy_agent(), state, batches)))
    thread.start()
    thread.join()
    assert results[0].steps == 20


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_steps_tokens_and_loss(toy_agent, batches, terminal):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120)
    train(toy_agent(), create_state(toy_agent(), TRAINING, 0), batches, TRAINING, console=console)
    for part in ("20/20", "steps/s", "tokens/s", "loss", "left"):
        assert part in text.getvalue()
    assert terminal or len(text.getvalue().splitlines()) == 10
