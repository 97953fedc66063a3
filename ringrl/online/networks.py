"""Multilayer perceptrons as plain lists of arrays, and the actor's squashed Gaussian."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ringrl.types import Array, Parameters

LOG_STD_RANGE = (-5.0, 2.0)
LOG_2, LOG_2_PI = 0.6931471805599453, 1.8378770664093453


def init_mlp(key: jax.Array, sizes: Sequence[int], scale: float = 1.0 / 3.0) -> Parameters:
    """Layers {"kernel": (in, out), "bias": (out,)}, float32; kernels uniform with variance scale / in."""
    initializer = jax.nn.initializers.variance_scaling(scale, "fan_in", "uniform")
    shapes = list(itertools.pairwise(sizes))
    keys = jax.random.split(key, len(shapes))
    return [
        {"kernel": initializer(one, shape, jnp.float32), "bias": jnp.zeros(shape[1:], jnp.float32)}
        for one, shape in zip(keys, shapes, strict=True)
    ]


def mlp(params: Parameters, inputs: Array) -> jax.Array:
    """(B, in) -> (B, out), ReLU between the layers."""
    hidden = jnp.asarray(inputs)
    for layer in params[:-1]:
        hidden = jax.nn.relu(hidden @ layer["kernel"] + layer["bias"][None])
    return hidden @ params[-1]["kernel"] + params[-1]["bias"][None]


def critic(params: Parameters, observations: Array, actions: Array) -> jax.Array:
    """Values (B,) of observations (B, O) and actions (B, A) in [-1, 1]."""
    return mlp(params, jnp.concatenate([observations, actions], axis=-1))[:, 0]


def gaussian(actor: Parameters, observations: Array) -> tuple[jax.Array, jax.Array]:
    """Mean and logarithm of the standard deviation, (B, A) each, before squashing."""
    mean, raw = jnp.split(mlp(actor, observations), 2, axis=-1)
    low, high = LOG_STD_RANGE
    return mean, low + 0.5 * (high - low) * (jnp.tanh(raw) + 1.0)


def sample_action(actor: Parameters, observations: Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Actions (B, A) in (-1, 1) and their log-densities (B,), both differentiable in the actor.

    a = tanh(u) with u Gaussian, so log p(a) = log p(u) - sum log(1 - tanh(u)^2), the last written so that it does not
    underflow (Haarnoja et al. 2018, arXiv 1812.05905, appendix C).
    """
    mean, log_std = gaussian(actor, observations)
    noise = jax.random.normal(key, mean.shape, jnp.float32)
    before = mean + jnp.exp(log_std) * noise
    density = -0.5 * (noise**2 + LOG_2_PI) - log_std
    squashing = 2.0 * (LOG_2 - before - jax.nn.softplus(-2.0 * before))
    return jnp.tanh(before), (density - squashing).sum(axis=-1)
