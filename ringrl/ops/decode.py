"""Attention of one or a few new tokens over a cache of keys and values."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ringrl.ops.precision import accumulator_dtype


def decode_attention(
    query: Float[Array, "B Q H D"],
    key: Float[Array, "B K T D"],
    value: Float[Array, "B K T D"],
    *,
    query_positions: Int[Array, "B Q"],
    key_positions: Int[Array, "B T"],
    query_segments: Int[Array, "B Q"],
    key_segments: Int[Array, "B T"],
) -> Float[Array, "B Q H D"]:
    """Causal attention of new tokens over cached ones (heads before tokens, as the cache keeps them).

    A cached token counts when its segment is the query's and its position is not later; negative segments never
    count. The new tokens' own keys must be in the cache already. A query with nothing to attend to gives 0.
    """
    chains, queries, heads, head_size = query.shape
    accumulator = accumulator_dtype(query)
    grouped = query.reshape(chains, queries, key.shape[1], heads // key.shape[1], head_size)
    scale = jnp.asarray(head_size**-0.5, query.dtype)
    scores = jnp.einsum("bqkgd,bktd->bkqgt", grouped * scale, key, preferred_element_type=accumulator)
    allowed = (key_positions[:, None, :] <= query_positions[:, :, None]) & (key_segments >= 0)[:, None, :]
    allowed &= key_segments[:, None, :] == query_segments[:, :, None]
    scores = jnp.where(allowed[:, None, :, None, :], scores, -jnp.inf)
    highest = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - jnp.where(jnp.isfinite(highest), highest, 0.0))
    total = weights.sum(axis=-1, keepdims=True)
    weights = (weights / jnp.where(total > 0, total, 1.0)).astype(value.dtype)
    mixed = jnp.einsum("bkqgt,bktd->bqkgd", weights, value, preferred_element_type=accumulator)
    return mixed.reshape(query.shape).astype(query.dtype)
