"""Attention of one or a few new tokens over a cache of keys and values."""

import jax
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
    grouped = jnp.einsum("bqkgd->bkqgd", grouped * jnp.asarray(head_size**-0.5, query.dtype))
    # The cache is read as it lies: with these operands in this order, XLA on a CPU does not transpose a copy of it.
    per_head = ((0, 1), (0, 1))
    scores = jax.lax.dot_general(key, grouped, (((3,), (4,)), per_head), preferred_element_type=accumulator)
    scores = jnp.einsum("bktqg->bkqgt", scores)
    allowed = (key_positions[:, None, :] <= query_positions[:, :, None]) & (key_segments >= 0)[:, None, :]
    allowed &= key_segments[:, None, :] == query_segments[:, :, None]
    scores = jnp.where(allowed[:, None, :, None, :], scores, -jnp.inf)
    highest = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - jnp.where(jnp.isfinite(highest), highest, 0.0))
    total = weights.sum(axis=-1, keepdims=True)
    weights = (weights / jnp.where(total > 0, total, 1.0)).astype(value.dtype)
    mixed = jax.lax.dot_general(weights, value, (((4,), (2,)), per_head), preferred_element_type=accumulator)
    return jnp.einsum("bkqgd->bqkgd", mixed).reshape(query.shape).astype(query.dtype)
