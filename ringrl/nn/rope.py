"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864)."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def apply_rope(x: Float[Array, "B S H D"], positions: Int[Array, "B S"], base: float) -> Float[Array, "B S H D"]:
    """Rotates pairs (i, i + D/2) of each head by position / base^(2i/D); angles in float32, result in x's dtype."""
    half = x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions.astype(jnp.float32)[:, :, None, None] * frequencies[None, None, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1).astype(x.dtype)
