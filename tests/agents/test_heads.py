"""Heads of actions against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.agents import AgentConfig
from ringrl.agents.action_heads import make_head
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec

BOUNDED = ActionSpec(ActionKind.continuous, 2, (-1.0, -2.0), (3.0, 2.0))  # centers 1 and 0, half widths 2
UNBOUNDED = ActionSpec(ActionKind.continuous, 2, (-1.0, -np.inf), (3.0, np.inf))
DISCRETE = ActionSpec(ActionKind.discrete, 3)


def head(name, spec=BOUNDED, **options):
    return make_head(AgentConfig(action_head=name, **options), spec)


def array(*values):
    return jnp.asarray(values, jnp.float32)


def draws(head, outputs, temperature=1.0, count=4000):
    outputs = jnp.broadcast_to(outputs, (count, *outputs.shape))
    return np.asarray(jax.jit(head.sample, static_argnums=2)(outputs, jax.random.key(0), temperature))


def test_deterministic():
    deterministic = head("deterministic")
    outputs = array(0.0, np.arctanh(0.5))
    # Scaled to [-1, 1] the action is (1, 0), the prediction (0, 0.5).
    np.testing.assert_allclose(deterministic.loss(outputs, array(3.0, 0.0)), (1.0 + 0.25) / 2, rtol=1e-5)
    np.testing.assert_allclose(deterministic.mode(outputs), [1.0, 1.0], rtol=1e-5)
    np.testing.assert_allclose(deterministic.sample(outputs, jax.random.key(0), 1.0), [1.0, 1.0], rtol=1e-5)
    np.testing.assert_allclose(deterministic.mode(array(99.0, -99.0)), [3.0, -2.0])


def test_gaussian():
    gaussian = head("gaussian")
    outputs = array(0.0, 0.5, 0.0, np.log(2.0))  # means, then logarithms of deviations
    first = 0.5 * 1.0**2 + 0.0
    second = 0.5 * 0.25**2 + np.log(2.0)
    expected = (first + second) / 2 + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(gaussian.loss(outputs, array(3.0, 0.0)), expected, rtol=1e-5)
    np.testing.assert_allclose(gaussian.mode(outputs), [1.0, 1.0])
    narrow = draws(gaussian, array(0.0, 0.0, np.log(0.1), np.log(0.2)))
    np.testing.assert_allclose(narrow.mean(axis=0), [1.0, 0.0], atol=0.03)
    np.testing.assert_allclose(narrow.std(axis=0), [0.2, 0.4], rtol=0.05)
    cold = draws(gaussian, array(0.0, 0.0, np.log(0.1), np.log(0.2)), temperature=0.5)
    np.testing.assert_allclose(cold.std(axis=0), [0.1, 0.2], rtol=0.05)


def test_gaussian_deviations_are_bounded():
    gaussian = head("gaussian")
    for extreme, limit in ((-99.0, -5.0), (99.0, 2.0)):
        loss = gaussian.loss(array(0.0, 0.0, extreme, extreme), array(1.0, 0.0))
        np.testing.assert_allclose(loss, limit + 0.5 * np.log(2 * np.pi), rtol=1e-5)


def test_gaussian_leaves_an_unbounded_dimension_in_its_units():
    gaussian = head("gaussian", UNBOUNDED)
    np.testing.assert_allclose(gaussian.mode(array(9.0, 9.0, 0.0, 0.0)), [3.0, 9.0])
    loss = gaussian.loss(array(0.0, 9.0, 0.0, 0.0), array(1.0, 9.0))
    np.testing.assert_allclose(loss, 0.5 * np.log(2 * np.pi), rtol=1e-6)


@pytest.mark.parametrize("bins", [2, 5])
def test_bins_cover_the_bounds_evenly(bins):
    binned = head("bins", action_bins=bins)
    assert binned.output_size == 2 * bins
    logits = 9.0 * jnp.concatenate([jnp.eye(bins), jnp.eye(bins)[::-1]], axis=1)  # (bins, 2 * bins)
    modes = np.asarray(binned.mode(logits))
    np.testing.assert_allclose(modes[:, 0], np.linspace(-1.0, 3.0, bins), atol=1e-6)
    np.testing.assert_allclose(modes[:, 1], np.linspace(2.0, -2.0, bins), atol=1e-6)


def test_bins_learn_the_nearest_bin():
    binned = head("bins", action_bins=5)
    certain = 99.0 * jnp.concatenate([jnp.eye(5)[3], jnp.eye(5)[1]])  # of centers -1 0 1 2 3, and -2 -1 0 1 2
    for near in ((2.0, -1.0), (1.6, -0.6), (2.4, -1.4)):
        np.testing.assert_allclose(binned.loss(certain, array(*near)), 0.0, atol=1e-6)
    np.testing.assert_allclose(binned.loss(certain, array(1.4, -1.0)), 99.0 / 2)
    np.testing.assert_allclose(binned.loss(jnp.zeros(10), array(0.3, 0.3)), np.log(5), rtol=1e-6)
    logits = array(0, 1, 2, 0, 0, 0, 0, 0, 0, 1)
    expected = (np.log(3 + np.e + np.e**2) - 1 + np.log(4 + np.e) - 1) / 2
    np.testing.assert_allclose(binned.loss(logits, array(0.0, 2.0)), expected, rtol=1e-5)
    # Beyond the bounds by rounding, an action belongs to the outermost bin.
    np.testing.assert_allclose(binned.loss(logits, array(0.0, 2.001)), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["deterministic", "gaussian", "bins"])
def test_samples_stay_within_the_bounds(name):
    chosen = head(name)
    actions = draws(chosen, 3.0 * jnp.asarray(np.random.default_rng(0).normal(size=chosen.output_size), jnp.float32))
    assert actions.shape == (4000, 2)
    assert actions.dtype == np.float32
    assert (actions >= BOUNDED.low).all()
    assert (actions <= BOUNDED.high).all()
    if name != "deterministic":
        assert (actions.std(axis=0) > 0.1).all()


def test_bins_are_sampled_by_their_probabilities():
    binned = head("bins", action_bins=2)
    actions = draws(binned, array(0.0, np.log(3.0), 0.0, 0.0))
    np.testing.assert_allclose((actions == BOUNDED.high).mean(axis=0), [0.75, 0.5], atol=0.03)
    cold = draws(binned, array(0.0, np.log(3.0), 0.0, 0.0), temperature=0.5)
    np.testing.assert_allclose((cold == BOUNDED.high).mean(axis=0), [0.9, 0.5], atol=0.03)


def test_categorical():
    categorical = head("categorical", DISCRETE)
    logits = array(0.0, 1.0, 2.0)
    total = np.log(1 + np.e + np.e**2)
    actions = jnp.asarray([0, 1, 2], jnp.int32)
    losses = categorical.loss(jnp.tile(logits, (3, 1)), actions)
    np.testing.assert_allclose(losses, [total, total - 1, total - 2], rtol=1e-5)
    assert categorical.mode(logits) == 2
    assert categorical.mode(logits).dtype == jnp.int32
    frequencies = np.bincount(draws(categorical, logits)) / 4000
    np.testing.assert_allclose(frequencies, np.exp([0, 1, 2] - total), atol=0.03)


@pytest.mark.parametrize("name", ["deterministic", "gaussian", "bins"])
def test_a_dimension_with_one_value_harms_nothing(name):
    chosen = head(name, ActionSpec(ActionKind.continuous, 2, (-1.0, 2.0), (3.0, 2.0)))
    loss, gradient = jax.value_and_grad(chosen.loss)(jnp.ones(chosen.output_size), array(1.0, 2.0))
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    assert chosen.mode(jnp.ones(chosen.output_size))[1] == 2.0


@pytest.mark.parametrize("name", ["deterministic", "bins", "auto"])
def test_unbounded_actions_need_a_gaussian(name):
    with pytest.raises(RingRLError, match=r"needs bounded actions; use agent\.action_head=gaussian\.$"):
        head(name, UNBOUNDED)


def test_heads_fit_their_kind_of_action():
    assert type(head("auto")).__name__ == "BinsHead"
    assert type(head("auto", DISCRETE)).__name__ == "CategoricalHead"
    with pytest.raises(RingRLError, match="categorical does not fit continuous actions; use bins, gaussian or"):
        head("categorical")
    with pytest.raises(RingRLError, match="gaussian does not fit discrete actions; use categorical, or auto"):
        head("gaussian", DISCRETE)
