"""Masks of attention between tokens, from positions, segments, causality and window; and of padding."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Labels:
    """The position of each token in its chain, and its segment (negative for padding); perhaps of many blocks."""

    positions: Int[Array, "*blocks B S"]
    segments: Int[Array, "*blocks B S"]


def attention_mask(queries: Labels, keys: Labels, *, causal: bool, window: int | None) -> Bool[Array, "B Q T"]:
    """True where a query may attend to a key: same non-negative segment, not later (causal), |i - j| < window."""
    key_positions = keys.positions[:, None, :]
    allowed = (queries.segments[:, :, None] == keys.segments[:, None, :]) & (keys.segments >= 0)[:, None, :]
    if causal:
        allowed &= key_positions <= queries.positions[:, :, None]
    if window is not None:
        allowed &= key_positions >= moved_back(queries.positions, window - 1)[:, :, None]
        if not causal:
            allowed &= key_positions <= moved_on(queries.positions, window - 1)[:, :, None]
    return allowed


def silence_padding(x: Shaped[Array, "B S ..."], segments: Int[Array, "B S"]) -> jax.Array:
    """`x` with 0 for tokens of no segment, of which the gradient is 0 too, whatever comes back for them.

    Padding may be anything, not-a-number too, which a weight of 0 does not silence.
    """
    valid = (segments >= 0).reshape(*segments.shape, *(1,) * (x.ndim - 2))
    return jnp.where(valid, x, jnp.zeros((), x.dtype))


def moved_back(positions: Int[Array, "..."], distance: int) -> jax.Array:
    """`positions - distance`, or the lowest int32 where that would be lower still: positions are any int32.

    A difference of two positions can need 33 bits. So what is compared are positions, never differences.
    """
    lowest = jnp.iinfo(jnp.int32).min
    if distance > 2**32 - 1:
        return jnp.full_like(positions, lowest)
    moved = positions.astype(jnp.uint32) - jnp.uint32(distance)
    # The differences that do not wrap around are those of the distance from the lowest, which fits 32 bits unsigned.
    fits = positions.astype(jnp.uint32) - jnp.uint32(2**31) >= jnp.uint32(distance)
    return jnp.where(fits, jax.lax.bitcast_convert_type(moved, jnp.int32), jnp.int32(lowest))


def moved_on(positions: Int[Array, "..."], distance: int) -> jax.Array:
    """`positions + distance`, or the highest int32 where that would be higher still."""
    return ~moved_back(~positions, distance)  # ~x is -1 - x, whatever the x
