"""The feed-forward network a block of tokens at a time (Liu and Abbeel 2023, arXiv 2305.19370)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def blockwise_feedforward(
    fn: Callable[[Float[Array, "B C M"]], Float[Array, "B C M"]], x: Float[Array, "B S M"], block_size: int
) -> Float[Array, "B S M"]:
    """`fn(x)`, for an `fn` that treats tokens alone, holding the activations of one block at a time.

    The backward pass recomputes a block's activations. A block size of 0, or of at least S, calls `fn` once.
    """
    length = x.shape[1]
    if block_size <= 0 or block_size >= length:
        return fn(x)
    padded = jnp.pad(x, ((0, 0), (0, -length % block_size), (0, 0)))
    blocks = jnp.moveaxis(padded.reshape(x.shape[0], -1, block_size, x.shape[2]), 1, 0)
    blocks = jax.lax.map(jax.checkpoint(fn), blocks)
    return jnp.moveaxis(blocks, 0, 1).reshape(padded.shape)[:, :length]
