"""One device's share of exact attention: some queries against some keys, a pair of blocks at a time.

Online softmax (Milakov and Gimelshein 2018) over key blocks inside a loop over query blocks (Rabe and Staats
2021); the backward pass recomputes a block's weights from the logsumexp of the whole row (Dao et al. 2022). Every
strategy is made of these two functions; they differ in which keys they hand over, and when.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ringrl.ops.dropout import dropout_multiplier
from ringrl.ops.kernels.interface import DropoutKeys, Labels, LocalOptions
from ringrl.ops.masks import attention_mask, block_is_masked
from ringrl.ops.precision import accumulator_dtype


def forward_part(
    options: LocalOptions,
    query: Float[Array, "B S H D"],
    key: Float[Array, "B T K D"],
    value: Float[Array, "B T K D"],
    queries: Labels,
    keys: Labels,
    dropout: DropoutKeys,
) -> tuple[Float[Array, "B S H D"], Float[Array, "B S H"]]:
    """Output over these keys alone, unrounded, and its logsumexp: 0 and -inf where a row has nothing to attend to."""
    accumulator, length = accumulator_dtype(query), query.shape[1]
    options = _shrink(options, query, key)
    grouped = query.reshape(*query.shape[:2], key.shape[2], -1, query.shape[-1])
    query_blocks = _split(options.query_block_size, queries, grouped)
    key_blocks = _split(options.key_block_size, keys, key, value)

    def one_query_block(block):
        labels, part = block

        def one_key_block(carry, other):
            others, *key_and_value = other

            def attend(carry):
                mixed, highest, total = carry
                scores = _scores(options, part, key_and_value[0], labels, others)
                new_highest = jnp.maximum(highest, scores.max(axis=-1))
                shift = jnp.where(jnp.isfinite(new_highest), new_highest, 0.0)
                weights = jnp.exp(scores - shift[..., None])
                correction = jnp.exp(highest - shift)
                total = total * correction + weights.sum(axis=-1)
                if options.dropout_rate > 0.0:
                    weights = weights * _keep(options, dropout, scores, labels, others)
                added = jnp.einsum(
                    "bkgqt,btkd->bkgqd",
                    weights.astype(value.dtype),
                    key_and_value[1],
                    preferred_element_type=accumulator,
                )
                return mixed * correction[..., None] + added, new_highest, total

            return jax.lax.cond(_is_masked(options, labels, others), lambda carry: carry, attend, carry), None

        shape = (part.shape[0], *part.shape[2:4], part.shape[1])  # (B, K, G, Cq)
        start = (
            jnp.zeros((*shape, part.shape[-1]), accumulator),
            jnp.full(shape, -jnp.inf, accumulator),
            jnp.zeros(shape, accumulator),
        )
        (mixed, highest, total), _ = jax.lax.scan(one_key_block, start, key_blocks)
        output = mixed / jnp.where(total > 0, total, 1.0)[..., None]
        return jnp.einsum("bkgqd->bqkgd", output), jnp.einsum("bkgq->bqkg", highest + jnp.log(total))

    output, logsumexp = (_join(part, length) for part in jax.lax.map(one_query_block, query_blocks))
    return output.reshape(query.shape), logsumexp.reshape(query.shape[:3])


def backward_part(
    options: LocalOptions,
    query: Float[Array, "B S H D"],
    key: Float[Array, "B T K D"],
    value: Float[Array, "B T K D"],
    queries: Labels,
    keys: Labels,
    dropout: DropoutKeys,
    logsumexp: Float[Array, "B S H"],
    row_sums: Float[Array, "B S H"],
    output_gradient: Float[Array, "B S H D"],
) -> tuple[Float[Array, "B S H D"], Float[Array, "B T K D"], Float[Array, "B T K D"]]:
    """These keys' share of the gradients of query, key and value, unrounded.

    `logsumexp` is that of the rows over all keys. `row_sums` are the sums of output x its gradient: they equal
    those of weights x their gradients, with or without dropout.
    """
    accumulator, scale = accumulator_dtype(query), query.shape[-1] ** -0.5
    options = _shrink(options, query, key)
    groups = (*query.shape[:2], key.shape[2], query.shape[2] // key.shape[2])
    query_blocks = _split(
        options.query_block_size,
        queries,
        query.reshape(*groups, -1),
        output_gradient.reshape(*groups, -1),
        row_sums.reshape(groups),
        jnp.where(jnp.isfinite(logsumexp), logsumexp, 0.0).reshape(groups),
    )
    key_blocks = _split(options.key_block_size, keys, key, value)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, accumulator), key_blocks[1:])

    def one_query_block(key_gradients, block):
        labels, part, gradients, *rows = block
        sums, shift = (jnp.einsum("bqkg->bkgq", row)[..., None] for row in rows)

        def one_key_block(query_gradient, other):
            (others, key_block, value_block), carried = other

            def differentiate(carry):
                query_gradient, key_gradient, value_gradient = carry
                scores = _scores(options, part, key_block, labels, others)
                dropped = weights = jnp.exp(scores - shift)
                weight_gradients = jnp.einsum(
                    "bqkgd,btkd->bkgqt", gradients, value_block, preferred_element_type=accumulator
                )
                if options.dropout_rate > 0.0:
                    keep = _keep(options, dropout, scores, labels, others)
                    dropped, weight_gradients = weights * keep, weight_gradients * keep
                low = (weights * (weight_gradients - sums) * scale).astype(query.dtype)
                query_gradient += jnp.einsum("bkgqt,btkd->bqkgd", low, key_block, preferred_element_type=accumulator)
                key_gradient += jnp.einsum("bkgqt,bqkgd->btkd", low, part, preferred_element_type=accumulator)
                value_gradient += jnp.einsum(
                    "bkgqt,bqkgd->btkd", dropped.astype(query.dtype), gradients, preferred_element_type=accumulator
                )
                return query_gradient, key_gradient, value_gradient

            query_gradient, *carried = jax.lax.cond(
                _is_masked(options, labels, others), lambda carry: carry, differentiate, (query_gradient, *carried)
            )
            return query_gradient, tuple(carried)

        start = jnp.zeros(part.shape, accumulator)
        query_gradient, key_gradients = jax.lax.scan(one_key_block, start, (key_blocks, key_gradients))
        return key_gradients, query_gradient

    (key_gradient, value_gradient), query_gradient = jax.lax.scan(one_query_block, zeros, query_blocks)
    return (
        _join(query_gradient, query.shape[1]).reshape(query.shape),
        _join(key_gradient, key.shape[1]),
        _join(value_gradient, key.shape[1]),
    )


def _shrink(options: LocalOptions, query: jax.Array, key: jax.Array) -> LocalOptions:
    """No block longer than what there is."""
    return options._replace(
        query_block_size=min(options.query_block_size, query.shape[1]),
        key_block_size=min(options.key_block_size, key.shape[1]),
    )


def _split(size: int, labels: Labels, *arrays: jax.Array) -> tuple:
    """(B, S, ...) -> (S / size, B, size, ...), lengthened to a multiple by tokens that belong to no segment."""
    extra = -labels.positions.shape[1] % size

    def blocks(array: jax.Array, filling: int = 0) -> jax.Array:
        padding = ((0, 0), (0, extra), *((0, 0),) * (array.ndim - 2))
        array = jnp.pad(array, padding, constant_values=filling)
        return jnp.moveaxis(array.reshape(array.shape[0], -1, size, *array.shape[2:]), 1, 0)

    return Labels(blocks(labels.positions), blocks(labels.segments, -1)), *(blocks(array) for array in arrays)


def _join(blocks: jax.Array, length: int) -> jax.Array:
    """The inverse of `_split`."""
    joined = jnp.moveaxis(blocks, 0, 1)
    return joined.reshape(joined.shape[0], -1, *joined.shape[3:])[:, :length]


def _scores(options: LocalOptions, query: jax.Array, key: jax.Array, queries: Labels, keys: Labels) -> jax.Array:
    """Masked scores (B, K, G, Cq, Ck), in at least float32."""
    scale = jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    scores = jnp.einsum("bqkgd,btkd->bkgqt", query * scale, key, preferred_element_type=accumulator_dtype(query))
    allowed = attention_mask(
        queries.positions, keys.positions, queries.segments, keys.segments, causal=options.causal, window=options.window
    )
    return jnp.where(allowed[:, None, None], scores, -jnp.inf)


def _keep(options: LocalOptions, dropout: DropoutKeys, scores: jax.Array, queries: Labels, keys: Labels) -> jax.Array:
    keep = dropout_multiplier(
        dropout.seed, options.dropout_rate, dropout.chains, dropout.heads, queries.positions, keys.positions
    )
    return keep.reshape(scores.shape).astype(scores.dtype)


def _is_masked(options: LocalOptions, queries: Labels, keys: Labels) -> jax.Array:
    return block_is_masked(
        queries.positions, keys.positions, queries.segments, keys.segments, causal=options.causal, window=options.window
    )
