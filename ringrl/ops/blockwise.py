"""Exact attention block by block on one device: memory linear in the sequence, forward and backward.

Online softmax (Milakov and Gimelshein 2018) over key blocks inside a loop over query blocks (Rabe and Staats
2021); the backward pass recomputes a block's weights from the saved logsumexp (Dao et al. 2022).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from ringrl.ops.dropout import dropout_multiplier
from ringrl.ops.masks import attention_mask, block_is_masked
from ringrl.ops.precision import accumulator_dtype


class _Options(NamedTuple):
    causal: bool
    window: int | None
    dropout_rate: float
    query_block_size: int
    key_block_size: int


class _Labels(NamedTuple):
    """Positions and segments of one block of tokens."""

    positions: jax.Array  # (B, C)
    segments: jax.Array  # (B, C)


def blockwise_attention(
    query: Float[Array, "B S H D"],
    key: Float[Array, "B T K D"],
    value: Float[Array, "B T K D"],
    query_positions: Int[Array, "B S"],
    key_positions: Int[Array, "B T"],
    query_segments: Int[Array, "B S"],
    key_segments: Int[Array, "B T"],
    *,
    query_block_size: int,
    key_block_size: int,
    causal: bool = True,
    window: int | None = None,
    dropout_rate: float = 0.0,
    seed: UInt32[Array, "2"] | None = None,
) -> Float[Array, "B S H D"]:
    """The values and gradients of `dense_attention`, one pair of blocks at a time; any lengths."""
    options = _Options(
        causal, window, dropout_rate, min(query_block_size, query.shape[1]), min(key_block_size, key.shape[1])
    )
    seed = jnp.zeros(2, jnp.uint32) if seed is None else seed
    padded_query, query_labels = _pad(options.query_block_size, query_positions, query_segments, query)
    padded_keys, key_labels = _pad(options.key_block_size, key_positions, key_segments, key, value)
    output = _attend(options, *padded_query, *padded_keys, query_labels, key_labels, seed)
    return output[:, : query.shape[1]]


def _pad(size: int, positions: jax.Array, segments: jax.Array, *arrays: jax.Array) -> tuple[list[jax.Array], _Labels]:
    """Lengthens to a multiple of `size`; the added tokens belong to no segment."""
    extra = -positions.shape[1] % size
    labels = _Labels(
        jnp.pad(positions, ((0, 0), (0, extra))), jnp.pad(segments, ((0, 0), (0, extra)), constant_values=-1)
    )
    return [jnp.pad(array, ((0, 0), (0, extra), (0, 0), (0, 0))) for array in arrays], labels


def _split(array: jax.Array, size: int) -> jax.Array:
    """(B, S, ...) -> (S / size, B, size, ...)."""
    blocks = array.reshape(array.shape[0], -1, size, *array.shape[2:])
    return jnp.moveaxis(blocks, 1, 0)


def _join(blocks: jax.Array) -> jax.Array:
    """The inverse of `_split`."""
    joined = jnp.moveaxis(blocks, 0, 1)
    return joined.reshape(joined.shape[0], -1, *joined.shape[3:])


def _scores(options: _Options, query: jax.Array, key: jax.Array, queries: _Labels, keys: _Labels) -> jax.Array:
    """Masked scores (B, K, G, Cq, Ck), in at least float32."""
    accumulator = accumulator_dtype(query)
    scale = jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    scores = jnp.einsum("bqkgd,btkd->bkgqt", query * scale, key, preferred_element_type=accumulator)
    allowed = attention_mask(
        queries.positions, keys.positions, queries.segments, keys.segments, causal=options.causal, window=options.window
    )
    return jnp.where(allowed[:, None, None], scores, -jnp.inf)


def _keep(options: _Options, seed: jax.Array, scores: jax.Array, queries: _Labels, keys: _Labels) -> jax.Array:
    chains, key_heads, groups = scores.shape[:3]
    keep = dropout_multiplier(
        seed,
        options.dropout_rate,
        jnp.arange(chains),
        jnp.arange(key_heads * groups),
        queries.positions,
        keys.positions,
    )
    return keep.reshape(scores.shape).astype(scores.dtype)


def _is_masked(options: _Options, queries: _Labels, keys: _Labels) -> jax.Array:
    return block_is_masked(
        queries.positions, keys.positions, queries.segments, keys.segments, causal=options.causal, window=options.window
    )


def _forward(options: _Options, query, key, value, query_labels: _Labels, key_labels: _Labels, seed):
    """Output (B, S, H, D), not rounded yet, and logsumexp (blocks, B, K, G, Cq), -inf where a row is empty."""
    accumulator = accumulator_dtype(query)
    grouped = query.reshape(*query.shape[:2], key.shape[2], -1, query.shape[-1])
    key_blocks = jax.tree.map(lambda x: _split(x, options.key_block_size), (key, value, key_labels))

    def one_query_block(block):
        queries, labels = block

        def one_key_block(carry, other):
            keys, values, others = other

            def attend(carry):
                mixed, highest, total = carry
                scores = _scores(options, queries, keys, labels, others)
                new_highest = jnp.maximum(highest, scores.max(axis=-1))
                shift = jnp.where(jnp.isfinite(new_highest), new_highest, 0.0)
                weights = jnp.exp(scores - shift[..., None])
                correction = jnp.exp(highest - shift)
                total = total * correction + weights.sum(axis=-1)
                if options.dropout_rate > 0.0:
                    weights = weights * _keep(options, seed, scores, labels, others)
                part = jnp.einsum(
                    "bkgqt,btkd->bkgqd", weights.astype(values.dtype), values, preferred_element_type=accumulator
                )
                return mixed * correction[..., None] + part, new_highest, total

            return jax.lax.cond(_is_masked(options, labels, others), lambda carry: carry, attend, carry), None

        shape = (queries.shape[0], *queries.shape[2:4], queries.shape[1])  # (B, K, G, Cq)
        start = (
            jnp.zeros((*shape, queries.shape[-1]), accumulator),
            jnp.full(shape, -jnp.inf, accumulator),
            jnp.zeros(shape, accumulator),
        )
        (mixed, highest, total), _ = jax.lax.scan(one_key_block, start, key_blocks)
        output = mixed / jnp.where(total > 0, total, 1.0)[..., None]
        return jnp.einsum("bkgqd->bqkgd", output), highest + jnp.log(total)

    query_blocks = jax.tree.map(lambda x: _split(x, options.query_block_size), (grouped, query_labels))
    outputs, logsumexp = jax.lax.map(one_query_block, query_blocks)
    return _join(outputs).reshape(query.shape), logsumexp


def _attend_primal(options: _Options, query, key, value, query_labels, key_labels, seed) -> jax.Array:
    return _forward(options, query, key, value, query_labels, key_labels, seed)[0].astype(query.dtype)


def _attend_forward(options: _Options, query, key, value, query_labels, key_labels, seed):
    output, logsumexp = _forward(options, query, key, value, query_labels, key_labels, seed)
    # The output is kept unrounded: the row sums of the backward pass amplify what rounding to bfloat16 loses.
    return output.astype(query.dtype), (query, key, value, query_labels, key_labels, seed, output, logsumexp)


def _attend_backward(options: _Options, saved, output_gradient):
    query, key, value, query_labels, key_labels, seed, output, logsumexp = saved
    accumulator = accumulator_dtype(query)
    scale = query.shape[-1] ** -0.5
    grouped_shape = (*query.shape[:2], key.shape[2], query.shape[2] // key.shape[2], query.shape[-1])
    # The row sums of weights x their gradients equal the sums of output x its gradient, with or without dropout.
    row_sums = (output * output_gradient.astype(accumulator)).sum(axis=-1)
    query_blocks = jax.tree.map(
        lambda x: _split(x, options.query_block_size),
        (query.reshape(grouped_shape), output_gradient.reshape(grouped_shape), row_sums, query_labels),
    )
    key_blocks = jax.tree.map(lambda x: _split(x, options.key_block_size), (key, value, key_labels))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, accumulator), key_blocks[:2])

    def one_query_block(key_gradients, block):
        (queries, gradients, sums, labels), lse = block
        sums = jnp.moveaxis(sums.reshape(*sums.shape[:2], *queries.shape[2:4]), 1, -1)  # (B, K, G, Cq)
        shift = jnp.where(jnp.isfinite(lse), lse, 0.0)

        def one_key_block(query_gradient, other):
            (keys, values, others), (key_gradient, value_gradient) = other

            def differentiate(carry):
                query_gradient, key_gradient, value_gradient = carry
                scores = _scores(options, queries, keys, labels, others)
                weights = jnp.exp(scores - shift[..., None])
                dropped = weights
                weight_gradients = jnp.einsum(
                    "bqkgd,btkd->bkgqt", gradients, values, preferred_element_type=accumulator
                )
                if options.dropout_rate > 0.0:
                    keep = _keep(options, seed, scores, labels, others)
                    dropped, weight_gradients = weights * keep, weight_gradients * keep
                score_gradients = weights * (weight_gradients - sums[..., None]) * scale
                low = score_gradients.astype(query.dtype)
                query_gradient += jnp.einsum("bkgqt,btkd->bqkgd", low, keys, preferred_element_type=accumulator)
                key_gradient += jnp.einsum("bkgqt,bqkgd->btkd", low, queries, preferred_element_type=accumulator)
                value_gradient += jnp.einsum(
                    "bkgqt,bqkgd->btkd", dropped.astype(query.dtype), gradients, preferred_element_type=accumulator
                )
                return query_gradient, key_gradient, value_gradient

            query_gradient, *others_gradients = jax.lax.cond(
                _is_masked(options, labels, others),
                lambda carry: carry,
                differentiate,
                (query_gradient, key_gradient, value_gradient),
            )
            return query_gradient, tuple(others_gradients)

        start = jnp.zeros(queries.shape, accumulator)
        query_gradient, key_gradients = jax.lax.scan(one_key_block, start, (key_blocks, key_gradients))
        return key_gradients, query_gradient

    (key_gradient, value_gradient), query_gradient = jax.lax.scan(one_query_block, zeros, (query_blocks, logsumexp))
    gradients = (
        _join(query_gradient).reshape(query.shape).astype(query.dtype),
        _join(key_gradient).astype(key.dtype),
        _join(value_gradient).astype(value.dtype),
    )
    no_gradient = jax.tree.map(
        lambda x: np.zeros(x.shape, jax.dtypes.float0), (query_labels, key_labels, seed)
    )  # integers have none
    return *gradients, *no_gradient


_attend = jax.custom_vjp(_attend_primal, nondiff_argnums=(0,))
_attend.defvjp(_attend_forward, _attend_backward)
