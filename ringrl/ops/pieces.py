"""A device's keys and values in pieces, each of which goes round the ring by itself.

What is under way, and what a device computes for it, is then a fraction of what stays: with four pieces forward and
backward hold about half of what they would otherwise (0.54, 32K tokens on four devices in float32).
"""

from typing import Any

import jax
from jaxtyping import Array, Int

from ringrl.ops.config import Kernel
from ringrl.ops.operands import LocalOptions
from ringrl.ops.precision import move


def piece_count(length: int, options: LocalOptions) -> int:
    """Into how many pieces the tokens of a device divide without work for more pairs of blocks.

    A block of both early and late tokens is masked for no query, so each half's share is whole blocks, or so many that
    the one block between the halves, and the last, which is not full, are little beside them.
    """
    if options.kernel is not Kernel.xla:
        return 1  # a fused kernel knows no masks but those of all of a device's tokens

    def divides(pieces: int) -> bool:
        share = 2 * pieces * options.key_block_size
        return length % share == 0 or (length % (2 * pieces) == 0 and length >= 8 * share)

    return next(pieces for pieces in (4, 2, 1) if pieces == 1 or divides(pieces))


def take_piece(tree: Any, pieces: int, index: Int[Array, ""]) -> Any:
    """One piece of every (B, S, ...): its share of each half of the tokens, so that zigzag's pieces are level too."""

    def take(x: Array) -> Array:
        piece = move(_take, index, _by_piece(x, pieces))
        return piece.reshape(x.shape[0], -1, *x.shape[2:])

    return jax.tree.map(take, tree)


def put_piece(tree: Any, piece: Any, pieces: int, index: Int[Array, ""]) -> Any:
    """Every (B, S, ...) with a piece in its place, rounded to its dtype."""

    def put(x: Array, part: Array) -> Array:
        whole = _by_piece(x, pieces)
        part = part.reshape(*whole.shape[:2], *whole.shape[3:]).astype(x.dtype)
        return move(_put, index, whole, part).reshape(x.shape)

    return jax.tree.map(put, tree, piece)


def _take(index: Int[Array, ""], x: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(x, index, 2, keepdims=False)


def _put(index: Int[Array, ""], x: Array, part: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(x, part, index, 2)


def _by_piece(x: Array, pieces: int) -> Array:
    """(B, S, ...) as (B, halves, pieces, tokens, ...)."""
    return x.reshape(x.shape[0], min(pieces, 2), pieces, -1, *x.shape[2:])
