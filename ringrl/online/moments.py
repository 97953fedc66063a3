"""Running mean and deviation, and standardization of observations of any scale."""

import dataclasses

import jax
import jax.numpy as jnp

from ringrl.types import Array

ROUNDING = 1e-6  # of the mean: a column this close to constant differs only by float32's rounding
SMALLEST = 1e-37  # smallest divisor in float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and deviation of all values so far, float32, shape (...)."""

    mean: jax.Array  # (...)
    deviation: jax.Array  # (...); not the variance, which leaves float32's range much earlier
    count: jax.Array  # () float32

    @property
    def std(self) -> jax.Array:
        """Standard deviation as a divisor: positive, and at least the rounding error of a constant."""
        return jnp.maximum(self.deviation, jnp.maximum(ROUNDING * jnp.abs(self.mean), SMALLEST))


def create_moments(shape: tuple[int, ...]) -> Moments:
    """Mean 0 and deviation 1, which the first batch replaces."""
    return Moments(jnp.zeros(shape, jnp.float32), jnp.ones(shape, jnp.float32), jnp.zeros((), jnp.float32))


def update_moments(moments: Moments, values: Array) -> Moments:
    """Moments with `values` (B, ...) added (Chan, Golub and LeVeque 1979, the parallel algorithm)."""
    values = jnp.asarray(values)
    added = jnp.float32(values.shape[0])
    count = moments.count + added
    share = added / count
    mean = values.mean(axis=0, keepdims=True)
    centered = values - mean
    size = jnp.maximum(jnp.abs(centered).max(axis=0, keepdims=True), SMALLEST)
    within = size[0] * jnp.sqrt(jnp.mean((centered / size) ** 2, axis=0))
    difference = mean[0] - moments.mean
    deviation = _root_of_squares(
        moments.deviation * jnp.sqrt(1.0 - share),
        within * jnp.sqrt(share),
        jnp.abs(difference) * jnp.sqrt(share * (1.0 - share)),
    )
    return Moments(moments.mean + difference * share, deviation, count)


def standardize(moments: Moments, values: Array, clip: float) -> jax.Array:
    """Express `values` (B, N) in standard deviations from the mean, clipped to -clip..clip."""
    scaled = (values - moments.mean[None]) / moments.std[None]
    return jnp.clip(scaled, -clip, clip)


def _root_of_squares(*parts: jax.Array) -> jax.Array:
    """The square root of the sum of squares of nonnegative parts, without overflow of the squares."""
    largest = jnp.maximum(jnp.stack(parts).max(axis=0), SMALLEST)
    return largest * jnp.sqrt(sum(((part / largest) ** 2 for part in parts), start=jnp.zeros_like(largest)))
