"""The feed-forward network a block of tokens at a time (Liu and Abbeel 2023, arXiv 2305.19370)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def blockwise_feedforward(
    fn: Callable[[Float[Array, "B C M"]], Float[Array, "B C M"]], x: Float[Array, "B S M"], block_size: int
) -> Float[Array, "B S M"]:
    """`fn(x)`, for an `fn` that treats tokens alone, holding the activations of one block at a time.

    The backward pass recomputes a block's activations. The last tokens, where the block does not divide S, are a block
    of their own: zeros to fill it up would be tokens that nobody gave, of which `fn` may make a gradient that is not a
    number.

    Args:
      fn: from (B, C, M) to (B, C, M), for any number C of tokens.
      x: the tokens.
      block_size: C, tokens at a time; 0, or S or more, calls `fn` once.

    Returns:
      What `fn(x)` returns.
    """
    length = x.shape[1]
    if block_size <= 0 or block_size >= length:
        return fn(x)
    fn = jax.checkpoint(fn)
    whole = length - length % block_size
    blocks = jnp.moveaxis(x[:, :whole].reshape(x.shape[0], whole // block_size, block_size, x.shape[2]), 1, 0)
    done = jnp.moveaxis(jax.lax.map(fn, blocks), 0, 1)
    done = done.reshape(x.shape[0], whole, done.shape[-1])
    return done if whole == length else jnp.concatenate([done, fn(x[:, whole:])], axis=1)
