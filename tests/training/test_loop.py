"""The loop: resuming exactly, logging, evaluating, saving."""

import dataclasses
import io
import threading

import jax
import numpy as np
import pytest
from rich.console import Console
from train_runs import TRAINING, Recording, run

from ringrl.errors import RingRLError
from ringrl.training import periodic_events
from ringrl.training.checkpoint import Checkpointer
from ringrl.training.loop import train
from ringrl.training.state import create_state
from ringrl.training.step import make_train_step

pytestmark = pytest.mark.usefixtures("compile_once")


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


def test_saving_by_the_clock_counts_from_the_last_save(toy_agent, batches, tmp_path, monkeypatch):
    """Half a minute a step; a checkpoint two minutes after the one before, whatever the reason for that."""
    agent, checkpointer = toy_agent(), Checkpointer(tmp_path, keep_last=100)
    minutes = [0.0]
    monkeypatch.setattr(periodic_events.time, "monotonic", lambda: 60 * minutes[0])

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


def test_a_finished_run_that_is_resumed_evaluates_and_does_no_step(toy_agent, batches, tmp_path):
    agent, checkpointer = toy_agent(), Checkpointer(tmp_path)
    first = run(agent, create_state(agent, TRAINING, 0), batches, checkpointer=checkpointer)
    state, metadata = checkpointer.restore(like=first.state)
    again = run(
        agent, state, batches, checkpointer=checkpointer, resumed=metadata, evaluate=lambda params, step: {"score": 4}
    )
    assert (again.losses, again.final_loss, again.steps, again.tokens) == ([], None, 20, first.tokens)
    assert checkpointer.best() == (20, 4.0)


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
