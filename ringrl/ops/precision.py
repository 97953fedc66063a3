"""The dtype of sums, and moves of 16-bit floats that do not widen them."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


def accumulator_dtype(array: jax.Array) -> jnp.dtype:
    """float32 for arrays of at most that precision, else the array's own: scores, softmax and sums are never lower."""
    return jnp.dtype(jnp.float64 if array.dtype == jnp.float64 else jnp.float32)


def move(operation: Callable[..., jax.Array], index: Int[Array, ""], *arrays: jax.Array) -> jax.Array:
    """`operation(index, *arrays)`, which only moves values (slices, updates): of one dtype, and of that dtype again.

    XLA on a CPU slices bfloat16 by widening the whole array first, which takes twice its memory. Integers it does not.
    """
    return operation(index, *arrays) if arrays[0].dtype.itemsize != 2 else _move_bits(operation, index, *arrays)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _move_bits(operation: Callable[..., jax.Array], index: Int[Array, ""], *arrays: jax.Array) -> jax.Array:
    as_integers = (jax.lax.bitcast_convert_type(x, jnp.uint16) for x in arrays)
    return jax.lax.bitcast_convert_type(operation(index, *as_integers), arrays[0].dtype)


@_move_bits.defjvp
def _(operation, primals, tangents):
    """Tangents move alike: integers have none, so that gradients of gradients were 0."""
    return _move_bits(operation, *primals), operation(primals[0], *tangents[1:])
