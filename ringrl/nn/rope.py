"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ringrl.ops.precision import accumulator_dtype

Rotation = tuple[Float[Array, "B S 1 D"], Float[Array, "B S 1 D"]]  # cosines, and sines with the sign of each half


def rope_rotation(positions: Int[Array, "B S"], head_size: int, base: float) -> Rotation:
    """Cosine and sine of position / base^(2i/D) for each pair i, computed once for all layers in float32."""
    half = head_size // 2
    angles = _angles(positions, base ** (-np.arange(half) / half))[:, :, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    rotation = jnp.concatenate([cos, cos], axis=-1), jnp.concatenate([-sin, sin], axis=-1)
    # Without the barrier XLA fuses the cosines into each of their uses, in every layer, forward and backward.
    return jax.lax.optimization_barrier(rotation)


def apply_rope(x: Float[Array, "B S H D"], rotation: Rotation) -> Float[Array, "B S H D"]:
    """Rotate the pairs (i, i + D/2) of each head in at least float32; the result has x's dtype."""
    cos, sin = rotation
    wide = x.astype(accumulator_dtype(x))
    cos, sin = cos.astype(wide.dtype), sin.astype(wide.dtype)
    first, second = jnp.split(wide, 2, axis=-1)
    return (wide * cos + jnp.concatenate([second, first], axis=-1) * sin).astype(x.dtype)


def _angles(positions: Int[Array, "B S"], frequencies: np.ndarray) -> Float[Array, "B S D/2"]:
    """position * frequency in [-pi, pi), accurate to the last bits of float32 at any position.

    A float32 product would be off by a radian at 16 million tokens. So turns are counted in units of 2^-32, which
    integers wrap around like angles; the part of a frequency below that unit is added as a float.
    """
    turns = frequencies / (2 * np.pi) * 2.0**32
    whole = np.floor(turns)
    wrapped = positions.astype(jnp.uint32)[:, :, None] * jnp.asarray(whole.astype(np.uint32))[None, None, :]
    below = positions.astype(jnp.float32)[:, :, None] * jnp.asarray((turns - whole).astype(np.float32))[None, None, :]
    units = wrapped + below.astype(jnp.int32).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(units, jnp.int32).astype(jnp.float32) * jnp.float32(2 * np.pi / 2**32)
