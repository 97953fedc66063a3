"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Rotation = tuple[Float[Array, "B S 1 D/2"], Float[Array, "B S 1 D/2"]]  # cosines and sines of every token's angles


def rope_rotation(positions: Int[Array, "B S"], head_size: int, base: float) -> Rotation:
    """Cosine and sine of position / base^(2i/D) for each pair i; once for all layers, in float32."""
    half = head_size // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions.astype(jnp.float32)[:, :, None, None] * frequencies[None, None, None, :]
    # Without the barrier XLA fuses the cosines into every use of them, in every layer, forward and backward.
    return jax.lax.optimization_barrier((jnp.cos(angles), jnp.sin(angles)))


def apply_rope(x: Float[Array, "B S H D"], rotation: Rotation) -> Float[Array, "B S H D"]:
    """Rotates pairs (i, i + D/2) of each head, in float32; result in x's dtype."""
    cos, sin = rotation
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1).astype(x.dtype)
