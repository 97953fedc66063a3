"""Dense attention: every score at once, written to be obviously right; every other path is held to it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from ringrl.ops.dropout import dropout_multiplier
from ringrl.ops.masks import attention_mask
from ringrl.ops.padding import silence_padding
from ringrl.ops.parts import chain_numbers
from ringrl.ops.precision import accumulator_dtype


def dense_attention(
    query: Float[Array, "B Q H D"],
    key: Float[Array, "B T K D"],
    value: Float[Array, "B T K D"],
    query_positions: Int[Array, "B Q"],
    key_positions: Int[Array, "B T"],
    query_segments: Int[Array, "B Q"],
    key_segments: Int[Array, "B T"],
    *,
    causal: bool = True,
    window: int | None = None,
    dropout_rate: float = 0.0,
    seed: UInt32[Array, "2"] | None = None,
) -> Float[Array, "B Q H D"]:
    """softmax(q k^T / sqrt(D)) v under the mask; softmax in at least float32; an empty row gives 0."""
    query = silence_padding(query, query_segments)
    key, value = (silence_padding(x, key_segments) for x in (key, value))
    chains, queries, heads, head_size = query.shape
    groups = heads // key.shape[2]
    accumulator = accumulator_dtype(query)
    grouped = query.reshape(chains, queries, key.shape[2], groups, head_size)
    scores = jnp.einsum("bqkgd,btkd->bkgqt", grouped, key, preferred_element_type=accumulator)
    scores = scores * jnp.asarray(head_size**-0.5, accumulator)  # there, where nothing is rounded to 16 bits
    allowed = attention_mask(
        query_positions, key_positions, query_segments, key_segments, causal=causal, window=window
    )[:, None, None]
    scores = jnp.where(allowed, scores, -jnp.inf)
    highest = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - jnp.where(jnp.isfinite(highest), highest, 0.0))
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights / jnp.where(total > 0, total, 1.0)
    if dropout_rate > 0.0:
        assert seed is not None
        keep = dropout_multiplier(
            seed, dropout_rate, chain_numbers(chains), jnp.arange(heads), query_positions, key_positions
        )
        weights = weights * keep.reshape(weights.shape).astype(weights.dtype)
    mixed = jnp.einsum("bkgqt,btkd->bqkgd", weights.astype(value.dtype), value, preferred_element_type=accumulator)
    return silence_padding(mixed.reshape(query.shape).astype(query.dtype), query_segments)
