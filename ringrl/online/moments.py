"""Running mean and variance, and observations scaled by them."""

import dataclasses

import jax
import jax.numpy as jnp

from ringrl.types import Array

SMALLEST_VARIANCE = 1e-6


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and variance of all that was seen so far, float32, shape (...)."""

    mean: jax.Array  # (...)
    variance: jax.Array  # (...)
    count: jax.Array  # () float32

    @property
    def std(self) -> jax.Array:
        """Standard deviation, at least 1e-3."""
        return jnp.sqrt(jnp.maximum(self.variance, SMALLEST_VARIANCE))


def create_moments(shape: tuple[int, ...]) -> Moments:
    """Mean 0 and variance 1, which the first batch replaces."""
    return Moments(jnp.zeros(shape, jnp.float32), jnp.ones(shape, jnp.float32), jnp.zeros((), jnp.float32))


def update_moments(moments: Moments, values: Array) -> Moments:
    """Moments with `values` (B, ...) added (Chan, Golub and LeVeque 1979, the parallel algorithm)."""
    values = jnp.asarray(values)
    added = jnp.float32(values.shape[0])
    count = moments.count + added
    share = added / count
    difference = values.mean(axis=0) - moments.mean
    between = difference**2 * share * (1.0 - share)
    variance = moments.variance * (1.0 - share) + values.var(axis=0) * share + between
    return Moments(moments.mean + difference * share, variance, count)


def standardize(moments: Moments, values: Array, clip: float) -> jax.Array:
    """`values` (B, N) in standard deviations from the mean, within -clip..clip."""
    scaled = (values - moments.mean[None]) / moments.std[None]
    return jnp.clip(scaled, -clip, clip)
