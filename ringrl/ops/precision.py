"""In which dtype sums are kept."""

import jax
import jax.numpy as jnp


def accumulator_dtype(array: jax.Array) -> jnp.dtype:
    """float32 for arrays of at most that precision, else the array's own: scores, softmax and sums are never lower."""
    return jnp.dtype(jnp.float64 if array.dtype == jnp.float64 else jnp.float32)
