"""One step: what it changes, what it reports, and when it changes nothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.errors import RingRLError
from ringrl.training.config import OptimizerConfig, TrainingConfig
from ringrl.training.microbatches import split_batch
from ringrl.training.optimizer import make_optimizer
from ringrl.training.state import create_state
from ringrl.training.step import make_train_step


def config(**options):
    optimizer = OptimizerConfig(learning_rate=1e-2, warmup_steps=2, clip_norm=0.5)
    return TrainingConfig(**{"steps": 20, "batch_size": 8, "optimizer": optimizer, **options})


def copy(tree):
    return jax.tree.map(jnp.copy, tree)


@functools.cache
def fresh(agent, training, seed):
    return create_state(agent, training, seed)


def new_state(agent, training, seed=0):
    return copy(fresh(agent, training, seed))  # the step donates what it is given


make_step = functools.cache(make_train_step)


def test_one_step_equals_optax_by_hand(toy_agent, chain):
    agent, training = toy_agent(), config()
    state = new_state(agent, training, seed=0)
    batch, params = chain(0), copy(state.params)
    (loss, _), gradients = jax.jit(jax.value_and_grad(agent.loss, has_aux=True))(params, batch, None)
    optimizer = make_optimizer(training)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = jax.jit(optimizer.update)(gradients, jax.jit(optimizer.init)(params), params)
    expected = jax.tree.map(jnp.add, params, updates)

    state, metrics = make_step(agent, training)(state, batch)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.params, expected)
    norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradients)))
    size = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(params)))
    assert metrics["loss"] == pytest.approx(float(loss), rel=1e-6)
    assert metrics["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    assert metrics["parameter_norm"] == pytest.approx(size, rel=1e-5)
    assert metrics["learning_rate"] == pytest.approx(0.5e-2)
    assert metrics["supervised_steps"] == batch.loss_mask.sum()
    assert int(state.step) == 1
    assert int(metrics["skipped"]) == 0


@pytest.mark.parametrize("pieces", [2, 4])
def test_accumulation_equals_the_whole_batch(toy_agent, chain, pieces):
    agent, batch = toy_agent(), chain(3)
    counts = batch.loss_mask.reshape(pieces, -1).sum(1)
    assert len(set(counts.tolist())) > 1, "pieces must be unevenly filled for this test to say something"
    whole, whole_metrics = make_step(agent, config())(new_state(agent, config(), 1), batch)
    training = config(gradient_accumulation=pieces)
    split, split_metrics = make_step(agent, training)(new_state(agent, config(), 1), batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), split.params, whole.params)
    for name in ("loss", "gradient_norm", "supervised_steps"):
        assert float(split_metrics[name]) == pytest.approx(float(whole_metrics[name]), rel=1e-6)
    assert split_metrics.keys() == whole_metrics.keys()


def test_pieces_are_in_order_and_must_divide(chain):
    batch = chain(0)
    pieces = split_batch(batch, 4)
    np.testing.assert_array_equal(pieces.observations[1], batch.observations[2:4])
    with pytest.raises(RingRLError, match="gradient_accumulation"):
        split_batch(batch, 3)


@pytest.mark.parametrize("pieces", [1, 4])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_batch_changes_nothing_but_the_counters(toy_agent, chain, assert_same, bad, pieces):
    agent, training = toy_agent(), config(gradient_accumulation=pieces)
    step = make_step(agent, training)
    state, _ = step(new_state(agent, config()), chain(0))
    before = copy(state)
    broken = chain(1)
    broken.actions[5, 0, 0] = bad
    broken.loss_mask[5, 0] = 1.0
    state, metrics = step(state, broken)
    assert not np.isfinite(metrics["loss"])
    assert_same(state.params, before.params)
    assert_same(state.optimizer_state, before.optimizer_state)
    assert (int(state.step), int(state.skipped), int(state.skipped_in_row)) == (2, 1, 1)
    state, _ = step(state, broken)
    assert (int(state.skipped), int(state.skipped_in_row)) == (2, 2)
    state, metrics = step(state, chain(2))
    assert (int(state.skipped), int(state.skipped_in_row)) == (2, 0)
    # The schedule counts updates: this is the second of the warm-up.
    assert float(metrics["learning_rate"]) == pytest.approx(1e-2)


def test_a_gradient_that_is_not_finite_is_caught_where_the_loss_is_fine(toy_agent, chain, assert_same):
    class Kinked(toy_agent):
        def loss(self, params, batch, dropout_key=None):
            loss, metrics = super().loss(params, batch, dropout_key)
            return loss + jnp.sqrt(params["action"]["bias"][0] * 0.0), metrics  # slope 1 / sqrt(0)

    state = new_state(Kinked(), config(), 0)
    before = copy(state.params)
    state, metrics = make_step(Kinked(), config())(state, chain(0))
    assert np.isfinite(metrics["loss"])
    assert int(state.skipped) == 1
    assert_same(state.params, before)


def test_dropout_depends_on_the_step_and_the_seed_alone(toy_agent, chain):
    agent, training = toy_agent(dropout_rate=0.5), config()
    step = make_step(agent, training)

    def loss(index, seed=0):
        state = dataclasses.replace(new_state(agent, training), step=jnp.int32(index), key=jax.random.key(seed))
        return float(step(state, chain(0))[1]["loss"])

    assert loss(3) == loss(3)
    assert len({loss(3), loss(4), loss(3, seed=1)}) == 3
