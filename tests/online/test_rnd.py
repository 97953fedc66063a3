"""Novelty decreases in visited regions and stays elsewhere; moments are those of all observations."""

import functools
from typing import Any

import jax
import numpy as np
import pytest

from ringrl.online import RewardKind, SacConfig
from ringrl.online.moments import create_moments, standardize, update_moments
from ringrl.online.rnd import RndState, create_rnd, rnd_step

pytestmark = pytest.mark.simulators

CONFIG = SacConfig(reward=RewardKind.rnd, rnd_width=32, rnd_features=8, rnd_learning_rate=1e-3)


def errors(state: RndState, observations: np.ndarray) -> np.ndarray:
    """(B,), in numpy."""
    outputs = []
    for layers in (state.predictor, state.target):
        hidden = observations
        for layer in layers[:-1]:
            hidden = np.maximum(hidden @ np.array(layer["kernel"]) + np.array(layer["bias"]), 0.0)
        outputs.append(hidden @ np.array(layers[-1]["kernel"]) + np.array(layers[-1]["bias"]))
    return ((outputs[0] - outputs[1]) ** 2).mean(axis=-1)


@functools.cache
def trained() -> dict[str, Any]:
    """Errors on a familiar region and on a novel one, before and after 200 steps on the familiar one alone."""
    rng = np.random.default_rng(0)
    familiar = (rng.normal(size=(64, 3)) * 0.3 + [1.0, 1.0, 0.0]).astype(np.float32)
    novel = (rng.normal(size=(64, 3)) * 0.3 - [1.0, 1.0, 0.0]).astype(np.float32)
    state = jax.jit(functools.partial(create_rnd, observation_size=3, config=CONFIG))(jax.random.key(0))
    step = jax.jit(functools.partial(rnd_step, config=CONFIG))
    first_target = jax.tree.map(np.array, state.target)
    seen, bonuses = [], []
    before = [errors(state, x) for x in (familiar, novel)]
    for _ in range(200):
        seen.append(errors(state, familiar))
        state, bonus = step(state, familiar)
        bonuses.append(np.array(bonus))
    after = [errors(state, x) for x in (familiar, novel)]
    moved = [(a != b).any() for a, b in zip(*map(jax.tree.leaves, (first_target, state.target)), strict=True)]
    return {"before": before, "after": after, "seen": seen, "bonuses": bonuses, "moved": moved}


def test_the_bonus_falls_on_what_is_repeated_and_stays_on_what_is_new() -> None:
    (familiar_before, novel_before), (familiar, novel) = trained()["before"], trained()["after"]
    assert familiar.mean() < 0.2 * familiar_before.mean()
    assert novel.mean() > 0.4 * novel_before.mean()
    assert novel.min() > np.median(familiar)
    assert novel.mean() > 5.0 * familiar.mean()
    bonuses = trained()["bonuses"]
    assert np.mean(bonuses[-1]) < 0.3 * np.mean(bonuses[0])


def test_the_target_network_is_never_learned() -> None:
    assert not any(trained()["moved"])


def test_the_bonus_is_the_error_before_the_step_over_the_running_deviation() -> None:
    for at in (0, 7, 199):
        so_far = np.concatenate(trained()["seen"][: at + 1])
        np.testing.assert_allclose(trained()["bonuses"][at], trained()["seen"][at] / so_far.std(), rtol=2e-3)


def test_moments_are_those_of_all_batches_together() -> None:
    rng = np.random.default_rng(0)
    batches = (rng.normal(size=(5, 64, 2)) * [10.0, 0.1] + [100.0, -1.0]).astype(np.float32)
    batches[..., 1] += np.arange(5, dtype=np.float32)[:, None]
    moments, add = create_moments((2,)), jax.jit(update_moments)
    for batch in batches:
        moments = add(moments, batch)
    everything = batches.reshape(-1, 2)
    np.testing.assert_allclose(moments.mean, everything.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments.deviation, everything.std(axis=0), rtol=1e-4)
    scaled = np.array(jax.jit(standardize)(moments, everything, 1.5))
    assert np.abs(scaled).max() == 1.5
    expected = (everything - everything.mean(axis=0)) / everything.std(axis=0)
    np.testing.assert_allclose(scaled, expected.clip(-1.5, 1.5), atol=1e-3)


def test_what_never_changes_does_not_divide_by_zero() -> None:
    constant = np.full((8, 1), 3.0, np.float32)
    moments = jax.jit(update_moments)(create_moments((1,)), constant)
    scaled = jax.jit(standardize)(moments, np.array([[3.0], [3.001], [9.0]], np.float32), 5.0)
    np.testing.assert_allclose(scaled[:, 0], [0.0, 5.0, 5.0], atol=1e-3)


@pytest.mark.parametrize("unit", [1e-30, 1e-9, 1e9, 1e30])
def test_observations_are_standardized_in_any_unit(unit: float) -> None:
    rng = np.random.default_rng(0)
    batches = rng.normal(size=(4, 64, 3)) * [1.0, 1.0, 0.0] + [0.0, 50.0, 0.0]
    standardized = []
    for scale in (1.0, unit):
        moments, add = create_moments((3,)), jax.jit(update_moments)
        for batch in batches:
            moments = add(moments, (scale * batch).astype(np.float32))
        standardized.append(jax.jit(standardize)(moments, (scale * batches[0]).astype(np.float32), 10.0))
    assert np.std(standardized[1], axis=0)[:2].min() > 0.7
    np.testing.assert_allclose(*standardized, atol=1e-3)
