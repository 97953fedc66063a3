"""A sum over tokens, a block of them at a time: for losses whose outputs are wider than what they are made of."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def blockwise_sum(
    fn: Callable[..., Float[Array, ""]], arrays: Sequence[Float[Array, "B S ..."]], block_size: int
) -> Float[Array, ""]:
    """`fn(*arrays)`, for an `fn` that sums over tokens, holding what it makes of one block at a time.

    The backward pass computes a block's share again. The last tokens, where the block does not divide S, are a block of
    their own. A block size of 0, or of at least S, calls `fn` once.
    """
    length = arrays[0].shape[1]
    if block_size <= 0 or block_size >= length:
        return fn(*arrays)

    def blocks(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x[:, :whole].reshape(x.shape[0], whole // block_size, block_size, *x.shape[2:]), 1, 0)

    fn, whole = jax.checkpoint(fn), length - length % block_size
    total = jax.lax.map(lambda block: fn(*block), tuple(map(blocks, arrays))).sum()
    return total if whole == length else total + fn(*(x[:, whole:] for x in arrays))
