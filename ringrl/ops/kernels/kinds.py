"""Kinds of masks of some queries against some keys, told apart by their labels while the program runs.

Fused kernels know "everything" and "the lower triangle". Every layout's full chains, and chains padded at their end,
make just the kinds below: contiguous `full` and `causal`; striped `causal`, and `strict` for keys of a later device;
zigzag `causal`, `early_keys` (of an earlier device) and `late_queries` (keys of a later one). What else there is
(packed segments within a block, a window's edge, shuffled tokens) is `mixed`.
"""

import enum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ringrl.ops.bounds import Bounds, bounds_are_masked, bounds_of
from ringrl.ops.masks import Labels, moved_back
from ringrl.ops.operands import LocalOptions

_LOWEST, _LARGEST = -(2**31), 2**31 - 1


class Kind(enum.Enum):
    """A mask, for every query that is not padding; rows of padding may be anything."""

    masked = "no key"
    early_keys = "every key of the first half, none of the second"
    late_queries = "every key for the second half of the queries, none for the first"
    strict = "query i: keys 0 to i - 1"
    causal = "query i: keys 0 to i"
    full = "every key"
    mixed = "anything"


def kinds_that_hold(options: LocalOptions, queries: Labels, keys: Labels) -> dict[Kind, Bool[Array, ""]]:
    """Whether the mask is of a kind in every chain, for those that these options and lengths allow, cheapest first.

    True is a proof. False may be caution, and `mixed` is always true.
    """
    (early_keys, late_keys), (early_queries, late_queries) = halves(keys), halves(queries)
    holds = {Kind.masked: _is_masked(options, queries, keys)}
    if keys.positions.shape[1] % 2 == 0:
        holds[Kind.early_keys] = _is_full(options, queries, early_keys) & _is_masked(options, queries, late_keys)
    if queries.positions.shape[1] % 2 == 0:
        holds[Kind.late_queries] = _is_masked(options, early_queries, keys) & _is_full(options, late_queries, keys)
    if options.causal and queries.positions.shape == keys.positions.shape:
        holds[Kind.strict] = _is_triangle(options, queries, keys, diagonal=False)
        holds[Kind.causal] = _is_triangle(options, queries, keys, diagonal=True)
    holds[Kind.full] = _is_full(options, queries, keys)
    holds[Kind.mixed] = jnp.asarray(True)
    return holds


def first_that_holds(holds: dict[Kind, Bool[Array, ""]]) -> Int[Array, ""]:
    """Its number in the order of the dictionary."""
    return jnp.argmax(jnp.stack(list(holds.values())))


def halves(labels: Labels) -> tuple[Labels, Labels]:
    """The first and the second half of tokens."""
    middle = labels.positions.shape[1] // 2
    return jax.tree.map(lambda x: x[:, :middle], labels), jax.tree.map(lambda x: x[:, middle:], labels)


def _is_masked(options: LocalOptions, queries: Labels, keys: Labels) -> jax.Array:
    return bounds_are_masked(bounds_of(queries), bounds_of(keys), causal=options.causal, window=options.window)


def _is_full(options: LocalOptions, queries: Labels, keys: Labels) -> jax.Array:
    rows, columns = bounds_of(queries), bounds_of(keys)
    full = (keys.segments >= 0).all(axis=1) & _is_one_segment(rows, columns)
    if options.causal:
        full &= columns.high <= rows.low
    if options.window is not None:
        full &= columns.low >= moved_back(rows.high, options.window - 1)
        full &= rows.low >= moved_back(columns.high, options.window - 1)
    return (full | rows.is_empty).all()


def _is_triangle(options: LocalOptions, queries: Labels, keys: Labels, *, diagonal: bool) -> jax.Array:
    """Keys stand in order, and each query between the last key that it may attend to and the first that it may not."""
    rows, columns = bounds_of(queries), bounds_of(keys)
    standing = jnp.where(keys.segments >= 0, keys.positions, _LARGEST)  # padding after everything
    if diagonal:
        last_seen, first_unseen = standing, jnp.pad(standing[:, 1:], ((0, 0), (0, 1)), constant_values=_LARGEST)
    else:
        last_seen = jnp.pad(standing[:, :-1], ((0, 0), (1, 0)), constant_values=_LOWEST)
        first_unseen = standing
    between = (last_seen <= queries.positions) & (queries.positions < first_unseen)
    triangle = (between | (queries.segments < 0)).all(axis=1) & (standing[:, 1:] >= standing[:, :-1]).all(axis=1)
    triangle &= _is_one_segment(rows, columns)
    if options.window is not None:
        triangle &= columns.low >= moved_back(rows.high, options.window - 1)
    return (triangle | rows.is_empty).all()


def _is_one_segment(queries: Bounds, keys: Bounds) -> jax.Array:
    """Whether all tokens but padding are of one segment, in each chain."""
    first = jnp.minimum(queries.first_segment, keys.first_segment)
    return first == jnp.maximum(queries.last_segment, keys.last_segment)
