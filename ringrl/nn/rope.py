"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Rotation = tuple[Float[Array, "B S 1 D"], Float[Array, "B S 1 D"]]  # cosines, and sines with the sign of their use


def rope_rotation(positions: Int[Array, "B S"], head_size: int, base: float) -> Rotation:
    """Cosine and sine of position / base^(2i/D) for each pair i; once for all layers, in float32."""
    half = head_size // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions.astype(jnp.float32)[:, :, None, None] * frequencies[None, None, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    rotation = jnp.concatenate([cos, cos], axis=-1), jnp.concatenate([-sin, sin], axis=-1)
    # Without the barrier XLA fuses the cosines into every use of them, in every layer, forward and backward.
    return jax.lax.optimization_barrier(rotation)


def apply_rope(x: Float[Array, "B S H D"], rotation: Rotation) -> Float[Array, "B S H D"]:
    """Rotates pairs (i, i + D/2) of each head, in float32; result in x's dtype."""
    cos, sin = rotation
    wide = x.astype(jnp.float32)
    first, second = jnp.split(wide, 2, axis=-1)
    return (wide * cos + jnp.concatenate([second, first], axis=-1) * sin).astype(x.dtype)
