"""The kernel of every device: plain array operations, a pair of blocks at a time.

Online softmax (Milakov and Gimelshein 2018) over key blocks inside a loop over query blocks (Rabe and Staats
2021); the backward pass recomputes a block's weights from the logsumexp of the whole row (Dao et al. 2022).

Inside a pair of blocks heads stand before tokens, and the queries that share a key head are rows of one matrix: then
every product is one that no operand is transposed for, which on a CPU halves the time of the key gradients.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ringrl.ops.bounds import Bounds, bounds_are_masked, bounds_of
from ringrl.ops.dropout import DropoutKeys, dropout_multiplier
from ringrl.ops.kernels.interface import Gradients, Logsumexp, Part, Rows
from ringrl.ops.masks import Labels, attention_mask, silence_padding
from ringrl.ops.operands import KeyBlock, LocalOptions, QueryBlock
from ringrl.ops.precision import accumulator_dtype, move


def forward(options: LocalOptions, queries: QueryBlock, keys: KeyBlock, dropout: DropoutKeys) -> Part:
    """Output over these keys alone, unrounded, and its logsumexp: 0 and -inf where a row has nothing to attend to."""
    accumulator, length, key_heads = accumulator_dtype(queries.query), queries.query.shape[1], keys.key.shape[2]
    options = _shrink(options, queries, keys)
    query_labels, query_bounds, query = _prepare(options.query_block_size, queries.labels, queries.query)
    key_labels, key_bounds, key, value = _prepare(options.key_block_size, keys.labels, keys.key, keys.value)

    def one_query_block(results, index):
        labels, part = _block(options.query_block_size, index, query_labels, query)
        part = _heads_first(part, key_heads)

        def one_key_block(carry, other):
            def attend(carry):
                mixed, highest, total = carry
                others, *key_and_value = _block(options.key_block_size, other, key_labels, key, value)
                key_block, value_block = (_heads_first(x, key_heads) for x in key_and_value)
                scores = _scores(options, part, key_block, labels, others)
                new_highest = jnp.maximum(highest, scores.max(axis=-1))
                shift = jnp.where(jnp.isfinite(new_highest), new_highest, 0.0)
                weights = jnp.exp(scores - shift[..., None])
                correction = jnp.exp(highest - shift)
                total = total * correction + weights.sum(axis=-1)
                if options.dropout_rate > 0.0:
                    weights = weights * _keep(options, dropout, scores, labels, others)
                added = _product("bkrt,bktd->bkrd", weights.astype(value.dtype), value_block)
                return mixed * correction[..., None] + added, new_highest, total

            masked = _is_masked(options, query_bounds, key_bounds, index, other)
            return jax.lax.cond(masked, lambda carry: carry, attend, carry), None

        rows = part.shape[:3]  # (B, K, R): the rows are the queries of a group of heads
        start = (
            jnp.zeros(part.shape, accumulator),
            jnp.full(rows, -jnp.inf, accumulator),
            jnp.zeros(rows, accumulator),
        )
        (mixed, highest, total), _ = jax.lax.scan(one_key_block, start, _numbers(key_bounds))
        some = jnp.where(total > 0, total, 1.0)
        found = mixed / some[..., None], highest[..., None], jnp.log(some)[..., None]
        return _write(results, index, *(_tokens_first(x, options.query_block_size) for x in found)), None

    results = jnp.zeros(query.shape, accumulator), *(jnp.zeros((*query.shape[:3], 1), accumulator) for _ in range(2))
    (output, *terms), _ = jax.lax.scan(one_query_block, results, _numbers(query_bounds))
    return output[:, :length], Logsumexp(*(term[:, :length, :, 0] for term in terms))


def backward(options: LocalOptions, queries: QueryBlock, keys: KeyBlock, dropout: DropoutKeys, rows: Rows) -> Gradients:
    """These keys' share of the gradients of query, key and value, unrounded.

    `rows.row_sums`, the sums of output x its gradient, equal those of weights x their gradients, with or without
    dropout. They are None where these keys are all that there are, in one block: then the latter are taken, from which
    the gradient of a weight near 1 cancels exactly.
    """
    accumulator, length = accumulator_dtype(queries.query), queries.query.shape[1]
    _, key_length, key_heads, head_size = keys.key.shape
    options = _shrink(options, queries, keys)
    row_sums = jnp.zeros(queries.query.shape[:3], accumulator) if rows.row_sums is None else rows.row_sums
    by_row = (row_sums, rows.logsumexp.shift, rows.logsumexp.log_total)
    arrays = (queries.query, rows.output_gradient, *(x[..., None] for x in by_row))
    query_labels, query_bounds, *arrays = _prepare(options.query_block_size, queries.labels, *arrays)
    key_labels, key_bounds, key, value = _prepare(options.key_block_size, keys.labels, keys.key, keys.value)
    scale = jnp.asarray(head_size**-0.5, accumulator)  # of scores, so of every gradient that goes through them

    def one_query_block(carry, index):
        query_gradient, *key_gradients = carry
        labels, *blocks = _block(options.query_block_size, index, query_labels, *arrays)
        part, gradients, sums, shift, log_total = (_heads_first(x, key_heads) for x in blocks)
        columns, gradient_columns = jnp.swapaxes(part, 2, 3), jnp.swapaxes(gradients, 2, 3)

        def one_key_block(carry, other):
            query_block, *stacked = carry

            def differentiate(carry):
                query_block, key_block, value_block = carry
                others, *key_and_value = _block(options.key_block_size, other, key_labels, key, value)
                key_rows, value_rows = (_heads_first(x, key_heads) for x in key_and_value)
                scores = _scores(options, part, key_rows, labels, others)
                dropped = weights = jnp.exp(scores - shift - log_total)
                weight_gradients = _product("bkrd,bktd->bkrt", gradients, value_rows)
                if options.dropout_rate > 0.0:
                    keep = _keep(options, dropout, scores, labels, others)
                    dropped, weight_gradients = weights * keep, weight_gradients * keep
                means = (weights * weight_gradients).sum(axis=-1, keepdims=True) if rows.row_sums is None else sums
                score_gradients = (weights * (weight_gradients - means) * scale).astype(part.dtype)
                return (
                    query_block + _product("bkrt,bktd->bkrd", score_gradients, key_rows),
                    key_block + _product("bkdr,bkrt->bkdt", columns, score_gradients),
                    value_block + _product("bkdr,bkrt->bkdt", gradient_columns, dropped.astype(part.dtype)),
                )

            masked = _is_masked(options, query_bounds, key_bounds, index, other)
            before = (query_block, *(x[other] for x in stacked))
            query_block, *after = jax.lax.cond(masked, lambda carry: carry, differentiate, before)
            return (query_block, *(x.at[other].set(block) for x, block in zip(stacked, after, strict=True))), None

        start = (jnp.zeros(part.shape, accumulator), *key_gradients)
        (query_block, *key_gradients), _ = jax.lax.scan(one_key_block, start, _numbers(key_bounds))
        found = _tokens_first(query_block, options.query_block_size)
        return (*_write((query_gradient,), index, found), *key_gradients), None

    shape = (len(_numbers(key_bounds)), key.shape[0], key_heads, head_size, options.key_block_size)
    start = jnp.zeros(arrays[0].shape, accumulator), jnp.zeros(shape, accumulator), jnp.zeros(shape, accumulator)
    (query_gradient, *key_gradients), _ = jax.lax.scan(one_query_block, start, _numbers(query_bounds))
    key_gradient, value_gradient = (
        jnp.einsum("nbkdt->bntkd", x).reshape(key.shape)[:, :key_length] for x in key_gradients
    )
    return query_gradient[:, :length], (key_gradient, value_gradient)


def _shrink(options: LocalOptions, queries: QueryBlock, keys: KeyBlock) -> LocalOptions:
    """No block longer than what there is."""
    return options._replace(
        query_block_size=min(options.query_block_size, queries.query.shape[1]),
        key_block_size=min(options.key_block_size, keys.key.shape[1]),
    )


def _prepare(size: int, labels: Labels, *arrays: jax.Array) -> tuple:
    """Lengthened to whole blocks by tokens that belong to no segment; and the bounds of each block's labels."""
    extra = -labels.positions.shape[1] % size

    def lengthen(array: jax.Array, filling: int = 0) -> jax.Array:
        if not extra:
            return array
        return jnp.pad(array, ((0, 0), (0, extra), *((0, 0),) * (array.ndim - 2)), constant_values=filling)

    labels = Labels(lengthen(labels.positions), lengthen(labels.segments, -1))
    by_block = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(x.shape[0], -1, size), 1, 0), labels)
    return labels, bounds_of(by_block), *map(lengthen, arrays)


def _numbers(bounds: Bounds) -> jax.Array:
    return jnp.arange(bounds.is_empty.shape[0])


def _block(size: int, index: jax.Array, labels: Labels, *arrays: jax.Array) -> tuple:
    def part(array: jax.Array) -> jax.Array:
        return move(lambda at, x: jax.lax.dynamic_slice_in_dim(x, at * size, size, axis=1), index, array)

    labels = jax.tree.map(part, labels)
    return labels, *(silence_padding(part(array), labels.segments) for array in arrays)


def _write(results: tuple, index: jax.Array, *blocks: jax.Array) -> tuple:
    """Each block of tokens in its place."""
    return tuple(
        jax.lax.dynamic_update_slice_in_dim(result, block, index * block.shape[1], axis=1)
        for result, block in zip(results, blocks, strict=True)
    )


def _heads_first(block: Float[Array, "B C H D"], key_heads: int) -> Float[Array, "B K R D"]:
    """Rows are numbered by head in the group, then token: R = H / K * C."""
    grouped = block.reshape(*block.shape[:2], key_heads, -1, block.shape[-1])
    return jnp.einsum("bckgd->bkgcd", grouped).reshape(block.shape[0], key_heads, -1, block.shape[-1])


def _tokens_first(block: Float[Array, "B K R D"], size: int) -> Float[Array, "B C H D"]:
    """The inverse of `_heads_first`."""
    grouped = block.reshape(*block.shape[:2], -1, size, block.shape[-1])
    return jnp.einsum("bkgcd->bckgd", grouped).reshape(block.shape[0], size, -1, block.shape[-1])


def _product(axes: str, one: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.einsum(axes, one, other, preferred_element_type=accumulator_dtype(one))


def _scores(options: LocalOptions, query: jax.Array, key: jax.Array, queries: Labels, keys: Labels) -> jax.Array:
    """Masked scores (B, K, R, C), in at least float32: scaled there, for a query in 16 bits would be rounded again."""
    scores = _product("bkrd,bktd->bkrt", query, key)
    scores = scores * jnp.asarray(query.shape[-1] ** -0.5, scores.dtype)
    allowed = attention_mask(queries, keys, causal=options.causal, window=options.window)
    grouped = scores.reshape(*scores.shape[:2], -1, *allowed.shape[1:])
    return jnp.where(allowed[:, None, None], grouped, -jnp.inf).reshape(scores.shape)


def _keep(options: LocalOptions, dropout: DropoutKeys, scores: jax.Array, queries: Labels, keys: Labels) -> jax.Array:
    keep = dropout_multiplier(dropout, options.dropout_rate, queries.positions, keys.positions)
    return keep.reshape(scores.shape).astype(scores.dtype)


def _is_masked(options: LocalOptions, queries: Bounds, keys: Bounds, query: jax.Array, key: jax.Array) -> jax.Array:
    """Whether one block of queries attends to nothing in one block of keys, in any chain."""
    pair = Bounds(*(x[query] for x in queries)), Bounds(*(x[key] for x in keys))
    return bounds_are_masked(*pair, causal=options.causal, window=options.window)
