"""In which dtype sums are kept, and 16-bit floats moved without being widened."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def accumulator_dtype(array: jax.Array) -> jnp.dtype:
    """float32 for arrays of at most that precision, else the array's own: scores, softmax and sums are never lower."""
    return jnp.dtype(jnp.float64 if array.dtype == jnp.float64 else jnp.float32)


def move(operation: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """`operation(*arrays)`, which only moves values (slices, updates): of one dtype, and of that dtype again.

    XLA on a CPU slices bfloat16 by widening the whole array first, which takes twice its memory. Integers it does not.
    """
    dtype = arrays[0].dtype
    if dtype.itemsize != 2:
        return operation(*arrays)
    as_integers = (jax.lax.bitcast_convert_type(x, jnp.uint16) for x in arrays)
    return jax.lax.bitcast_convert_type(operation(*as_integers), dtype)
