"""Dense attention: all scores at once. It is the reference that every other strategy is tested against."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ringrl.ops.dropout import DropoutKeys, dropout_multiplier
from ringrl.ops.masks import attention_mask, silence_padding
from ringrl.ops.operands import KeyBlock, LocalOptions, QueryBlock
from ringrl.ops.precision import accumulator_dtype


def dense_attention(
    options: LocalOptions, queries: QueryBlock, keys: KeyBlock, dropout: DropoutKeys
) -> Float[Array, "B Q H D"]:
    """softmax(q k^T / sqrt(D)) v under the mask; softmax in at least float32; an empty row gives 0."""
    query = silence_padding(queries.query, queries.labels.segments)
    key, value = (silence_padding(x, keys.labels.segments) for x in (keys.key, keys.value))
    accumulator = accumulator_dtype(query)
    grouped = query.reshape(*query.shape[:2], key.shape[2], -1, query.shape[3])
    scores = jnp.einsum("bqkgd,btkd->bkgqt", grouped, key, preferred_element_type=accumulator)
    scores = scores * jnp.asarray(query.shape[3] ** -0.5, accumulator)  # there, where nothing is rounded to 16 bits
    allowed = attention_mask(queries.labels, keys.labels, causal=options.causal, window=options.window)
    scores = jnp.where(allowed[:, None, None], scores, -jnp.inf)
    highest = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - jnp.where(jnp.isfinite(highest), highest, 0.0))
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights / jnp.where(total > 0, total, 1.0)
    if options.dropout_rate > 0.0:
        positions = queries.labels.positions, keys.labels.positions
        keep = dropout_multiplier(dropout, options.dropout_rate, *positions)
        weights = weights * keep.reshape(weights.shape).astype(weights.dtype)
    mixed = jnp.einsum("bkgqt,btkd->bqkgd", weights.astype(value.dtype), value, preferred_element_type=accumulator)
    return silence_padding(mixed.reshape(query.shape).astype(query.dtype), queries.labels.segments)
