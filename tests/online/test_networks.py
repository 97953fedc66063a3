"""The squashed Gaussian against integrals and the textbook formula."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.online.networks import gaussian, mlp, sample_action
from ringrl.types import Array

pytestmark = pytest.mark.simulators


def constant_actor(mean: float, log_std: float) -> list[dict[str, Array]]:
    """An actor without layers whose Gaussian does not depend on the observation (1,)."""
    raw = float(np.arctanh((log_std + 5.0) / 3.5 - 1.0))
    return [{"kernel": np.zeros((1, 2), np.float32), "bias": np.array([mean, raw], np.float32)}]


@jax.jit
def draw(actor: list[dict[str, Array]], key: jax.Array) -> tuple[jax.Array, jax.Array, list[dict[str, Array]]]:
    """Actions, log-densities, and the gradient of the mean log-density."""

    def mean(actor):
        actions, density = sample_action(actor, jnp.zeros((4096, 1)), key)
        return density.mean(), (actions, density)

    gradients, (actions, density) = jax.grad(mean, has_aux=True)(actor)
    return actions[:, 0], density, gradients


def test_log_densities_are_those_that_integrate_to_one() -> None:
    """p(a) found by differencing the Gaussian's distribution function at atanh(a), with no formula for tanh's slope."""
    edges = np.linspace(-1.0, 1.0, 20001)
    middle, width = 0.5 * (edges[1:] + edges[:-1]), edges[1] - edges[0]
    with np.errstate(divide="ignore"):
        before = np.arctanh(edges)
    for mean, log_std in ((0.0, 0.0), (0.7, -1.0)):
        actions, density, _ = draw(constant_actor(mean, log_std), jax.random.key(0))
        cumulated = [0.5 * (1.0 + math.erf((x - mean) / np.exp(log_std) / np.sqrt(2.0))) for x in before]
        exact = np.diff(cumulated) / width
        assert np.isclose(exact.sum() * width, 1.0)
        inner = np.abs(actions) < 0.99
        np.testing.assert_allclose(np.exp(density[inner]), np.interp(actions[inner], middle, exact), rtol=1e-3)
        entropy = -np.sum(exact[exact > 0] * np.log(exact[exact > 0])) * width
        assert abs(-density.mean() - entropy) < 0.05


def test_far_out_the_density_stays_finite() -> None:
    """tanh rounds to 1 there, and log(1 - tanh^2) to minus infinity."""
    actions, density, gradients = draw(constant_actor(30.0, 0.0), jax.random.key(0))
    assert (actions == 1.0).all()
    assert 55.0 < density.mean() < 60.0  # 2 u - log 4 - log(sqrt(2 pi)) - 1/2, with u = 30: 57.2
    assert np.isfinite(density).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    np.testing.assert_allclose(gradients[0]["bias"][0], 2.0, atol=1e-4)


def test_a_perceptron_is_its_matrices() -> None:
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    first, last = ({"kernel": normal(*shape), "bias": normal(shape[1])} for shape in ((3, 5), (5, 2)))
    inputs = normal(4, 3)
    expected = np.maximum(inputs @ first["kernel"] + first["bias"], 0.0) @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(jax.jit(mlp)([first, last], inputs), expected, rtol=1e-5, atol=1e-6)


def test_deviations_stay_in_their_range() -> None:
    actor = [{"kernel": np.ones((1, 2), np.float32), "bias": np.zeros(2, np.float32)}]
    _, log_std = jax.jit(gaussian)(actor, np.array([[-100.0], [0.0], [100.0]], np.float32))
    np.testing.assert_allclose(log_std[:, 0], [-5.0, -1.5, 2.0])
