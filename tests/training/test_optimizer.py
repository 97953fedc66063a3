"""Learning rates by hand, clipping, and what decays."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.training.config import OptimizerConfig, Schedule, TrainingConfig
from ringrl.training.optimizer import decay_mask, learning_rate_schedule, make_optimizer


def rates(steps=11, **options):
    config = TrainingConfig(steps=steps, optimizer=OptimizerConfig(learning_rate=2.0, **options))
    return np.asarray([learning_rate_schedule(config)(step) for step in range(steps)])


def test_warmup_rises_from_the_first_update_to_the_full_rate():
    np.testing.assert_allclose(rates(warmup_steps=4, schedule=Schedule.constant)[:6], [0.5, 1.0, 1.5, 2.0, 2.0, 2.0])


def test_cosine_falls_to_the_final_fraction_at_the_last_step():
    values = rates(warmup_steps=2, final_fraction=0.1)
    # Updates 2 to 10 are the cosine's: full at 2, half-way at 6, a tenth at 10.
    np.testing.assert_allclose(values[[1, 2, 6, 10]], [2.0, 2.0, 2.0 * 0.55, 0.2], rtol=1e-6)
    assert np.all(np.diff(values[2:]) < 0)


def test_no_warmup_starts_at_the_full_rate():
    np.testing.assert_allclose(rates(warmup_steps=0)[[0, 5, 10]], [2.0, 1.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("clip_norm", [0.5, 0.0])
def test_clipping_bounds_what_adam_sees(clip_norm):
    config = TrainingConfig(optimizer=OptimizerConfig(clip_norm=clip_norm, weight_decay=0.0))
    params = {"kernel": jnp.zeros((2, 2))}
    gradients = {"kernel": jnp.full((2, 2), 10.0)}  # norm 20
    optimizer = make_optimizer(config)
    with jax.numpy_dtype_promotion("standard"):
        _, state = optimizer.update(gradients, optimizer.init(params), params)
    first_moment = next(leaf for leaf in jax.tree.leaves(state) if leaf.shape == (2, 2))
    norm = clip_norm or 20.0
    np.testing.assert_allclose(np.linalg.norm(first_moment), 0.1 * norm, rtol=1e-5)


def test_only_matrices_decay():
    params = {
        "embedding": jnp.ones((5, 4)),
        "layers": {"kernel": jnp.ones((2, 4, 4)), "bias": jnp.ones((2, 4)), "norm": {"scale": jnp.ones((2, 4))}},
        "temperature": jnp.ones((3,)),
    }
    assert decay_mask(params) == {
        "embedding": True,
        "layers": {"kernel": True, "bias": False, "norm": {"scale": False}},
        "temperature": False,
    }
    config = TrainingConfig(optimizer=OptimizerConfig(learning_rate=0.1, weight_decay=0.5, warmup_steps=0))
    optimizer = make_optimizer(dataclasses.replace(config))
    zeros = jax.tree.map(jnp.zeros_like, params)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["layers"]["kernel"], -0.05 * np.ones((2, 4, 4)), rtol=1e-6)
    assert not np.any(updates["layers"]["bias"])
