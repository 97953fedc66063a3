"""Heads of continuous actions: one value per dimension, a Gaussian, or bins."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ringrl.agents.head import Head
from ringrl.errors import RingRLError
from ringrl.types import ActionSpec


class _Continuous(Head):
    """Scaling of actions to [-1, 1] by their bounds; an unbounded dimension keeps its units."""

    def __init__(self, spec: ActionSpec):
        low, high = np.asarray(spec.low, np.float64), np.asarray(spec.high, np.float64)
        self.size = spec.size
        self.bounded = np.isfinite(low) & np.isfinite(high)
        low, high = np.where(self.bounded, low, -1.0), np.where(self.bounded, high, 1.0)
        self.center = ((low + high) / 2).astype(np.float32)
        self.half = ((high - low) / 2).astype(np.float32)

    def scale(self, actions: jax.Array) -> jax.Array:
        width = np.where(self.half > 0, self.half, np.float32(1))  # a dimension with a single value
        return (actions.astype(jnp.float32) - _like(self.center, actions)) / _like(width, actions)

    def unscale(self, values: jax.Array) -> jax.Array:
        clipped = jnp.where(_like(self.bounded, values), jnp.clip(values, -1.0, 1.0), values)
        return clipped * _like(self.half, values) + _like(self.center, values)


def _like(vector: np.ndarray, values: jax.Array) -> np.ndarray:
    """`vector` (A,) reshaped to broadcast against `values` (..., A)."""
    return vector.reshape((1,) * (values.ndim - 1) + vector.shape)


class DeterministicHead(_Continuous):
    """A tanh output with mean squared error over dimensions (Decision Transformer, arXiv 2106.01345)."""

    def __init__(self, spec: ActionSpec):
        super().__init__(spec)
        if not bool(self.bounded.all()):
            raise RingRLError("agent.action_head=deterministic needs bounded actions; use agent.action_head=gaussian.")
        self.output_size = spec.size

    def loss(self, outputs, actions):
        return jnp.mean((jnp.tanh(outputs) - self.scale(actions)) ** 2, axis=-1)

    def mode(self, outputs):
        return self.unscale(jnp.tanh(outputs))

    def sample(self, outputs, key, temperature):
        del key, temperature
        return self.mode(outputs)


class GaussianHead(_Continuous):
    """A diagonal Gaussian with negative log-likelihood, mean over dimensions; the log deviation is within [-5, 2]."""

    def __init__(self, spec: ActionSpec):
        super().__init__(spec)
        self.output_size = 2 * spec.size

    def _split(self, outputs):
        mean, log_std = jnp.split(outputs, 2, axis=-1)
        return mean, jnp.clip(log_std, -5.0, 2.0)

    def loss(self, outputs, actions):
        mean, log_std = self._split(outputs)
        standardised = (self.scale(actions) - mean) * jnp.exp(-log_std)
        return jnp.mean(0.5 * standardised**2 + log_std + 0.5 * jnp.log(2 * jnp.pi), axis=-1)

    def mode(self, outputs):
        return self.unscale(self._split(outputs)[0])

    def sample(self, outputs, key, temperature):
        mean, log_std = self._split(outputs)
        return self.unscale(mean + temperature * jnp.exp(log_std) * jax.random.normal(key, mean.shape))


class BinsHead(_Continuous):
    """A categorical distribution over equal bins for each dimension; the action is a bin's center.

    The outermost centers lie on the bounds, so the extreme actions can be expressed.
    """

    def __init__(self, spec: ActionSpec, bins: int):
        super().__init__(spec)
        if not bool(self.bounded.all()):
            raise RingRLError("agent.action_head=bins needs bounded actions; use agent.action_head=gaussian.")
        self.bins = bins
        self.output_size = spec.size * bins

    def _logits(self, outputs):
        return outputs.reshape(*outputs.shape[:-1], self.size, self.bins)

    def _centers(self, indices):
        return self.unscale(indices.astype(jnp.float32) * (2.0 / (self.bins - 1)) - 1.0)

    def loss(self, outputs, actions):
        scaled = jnp.clip(self.scale(actions), -1.0, 1.0)
        labels = jnp.round((scaled + 1.0) * ((self.bins - 1) / 2)).astype(jnp.int32)
        return optax.softmax_cross_entropy_with_integer_labels(self._logits(outputs), labels).mean(axis=-1)

    def mode(self, outputs):
        return self._centers(jnp.argmax(self._logits(outputs), axis=-1))

    def sample(self, outputs, key, temperature):
        return self._centers(jax.random.categorical(key, self._logits(outputs) / temperature))
