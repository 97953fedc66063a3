"""Who may attend to whom, from positions, segments, causality and window; and when a whole block may not."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def attention_mask(
    query_positions: Int[Array, "B Q"],
    key_positions: Int[Array, "B T"],
    query_segments: Int[Array, "B Q"],
    key_segments: Int[Array, "B T"],
    *,
    causal: bool,
    window: int | None,
) -> Bool[Array, "B Q T"]:
    """True where a query may attend to a key: same non-negative segment, not later (causal), |i - j| < window."""
    distance = query_positions[:, :, None] - key_positions[:, None, :]
    allowed = (query_segments[:, :, None] == key_segments[:, None, :]) & (key_segments >= 0)[:, None, :]
    if causal:
        allowed &= distance >= 0
    if window is not None:
        allowed &= jnp.abs(distance) < window
    return allowed


def block_is_masked(
    query_positions: Int[Array, "B Q"],
    key_positions: Int[Array, "B T"],
    query_segments: Int[Array, "B Q"],
    key_segments: Int[Array, "B T"],
    *,
    causal: bool,
    window: int | None,
) -> Bool[Array, ""]:
    """True only if bounds alone prove that no query of the block attends to any key of the other, in any chain.

    Padding (a negative segment) does not widen the bounds. False is always safe.
    """
    largest = jnp.iinfo(jnp.int32).max
    query_valid, key_valid = query_segments >= 0, key_segments >= 0

    def bounds(values: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
        lowest = jnp.where(valid, values, largest).min(axis=1)
        return lowest, jnp.where(valid, values, -largest).max(axis=1)

    query_low, query_high = bounds(query_positions, query_valid)
    key_low, key_high = bounds(key_positions, key_valid)
    query_first, query_last = bounds(query_segments, query_valid)
    key_first, key_last = bounds(key_segments, key_valid)
    masked = ~query_valid.any(axis=1) | ~key_valid.any(axis=1)
    masked |= (query_first > key_last) | (key_first > query_last)
    if causal:
        masked |= key_low > query_high
    if window is not None:
        # Written without differences of sentinels, which could overflow where a block is all padding.
        masked |= (query_low - window >= key_high) | (key_low - window >= query_high)
    return masked.all()
