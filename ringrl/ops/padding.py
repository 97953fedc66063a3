"""Padding has no part in anything: whatever stands there, not-a-number too, a weight of 0 does not silence it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped


def silence_padding(x: Shaped[Array, "B S ..."], segments: Int[Array, "B S"]) -> jax.Array:
    """`x` with 0 for tokens of no segment, of which the gradient is 0 too, whatever comes back for them."""
    valid = (segments >= 0).reshape(*segments.shape, *(1,) * (x.ndim - 2))
    return jnp.where(valid, x, jnp.zeros((), x.dtype))
