"""Masks of attention between whole blocks, proved from the bounds of their positions and segments."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ringrl.ops.masks import Labels, moved_back


class Bounds(NamedTuple):
    """Bounds of a block's positions and segments in each chain; padding (a negative segment) is excluded."""

    low: Int[Array, "*blocks B"]
    high: Int[Array, "*blocks B"]
    first_segment: Int[Array, "*blocks B"]
    last_segment: Int[Array, "*blocks B"]
    is_empty: Bool[Array, "*blocks B"]  # all padding


def bounds_of(labels: Labels) -> Bounds:
    """The bounds of each block."""
    both, valid, limits = (labels.positions, labels.segments), labels.segments >= 0, jnp.iinfo(jnp.int32)
    lowest = (jnp.where(valid, values, limits.max).min(axis=-1) for values in both)
    highest = (jnp.where(valid, values, limits.min).max(axis=-1) for values in both)
    (low, first), (high, last) = lowest, highest
    return Bounds(low, high, first, last, ~valid.any(axis=-1))


def bounds_are_masked(queries: Bounds, keys: Bounds, *, causal: bool, window: int | None) -> Bool[Array, "*blocks"]:
    """True only if bounds alone prove that no query of a block attends to any key of the other, in any chain.

    False is always safe.
    """
    masked = queries.is_empty | keys.is_empty
    masked |= (queries.first_segment > keys.last_segment) | (keys.first_segment > queries.last_segment)
    if causal:
        masked |= keys.low > queries.high
    if window is not None:
        masked |= (keys.high < moved_back(queries.low, window - 1)) | (queries.high < moved_back(keys.low, window - 1))
    return masked.all(axis=-1)


def block_is_masked(queries: Labels, keys: Labels, *, causal: bool, window: int | None) -> Bool[Array, "*blocks"]:
    """`bounds_are_masked`, from the labels of both blocks."""
    return bounds_are_masked(bounds_of(queries), bounds_of(keys), causal=causal, window=window)
