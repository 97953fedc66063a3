"""Dropout keyed by where a value stands in its chain, not in memory: one mask for every strategy, layout and mesh.

A counter is hashed instead of drawing from `jax.random`: a draw by threefry costs a CPU more than the projection
that it follows, and its mask would belong to the order of an array.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt32

from ringrl.ops.parts import chain_numbers


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DropoutKeys:
    """The seed and, numbered over all devices, the chains and heads at hand: with two positions they name a weight."""

    seed: UInt32[Array, "2"]
    chains: Int[Array, " B"]
    heads: Int[Array, " H"]


def _mix(bits: jax.Array) -> jax.Array:
    """A bijection of 32-bit words whose output bits depend on all input bits (a xor-shift-multiply finalizer)."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def dropout_seed(key: Key[Array, ""]) -> UInt32[Array, "2"]:
    """Two words of a JAX key: the counter's seed."""
    return jax.random.key_data(key).astype(jnp.uint32).reshape(-1)[:2]


def dropout_multiplier(
    keys: DropoutKeys, rate: float, query_positions: Int[Array, "B Q"], key_positions: Int[Array, "B T"]
) -> Float[Array, "B H Q T"]:
    """0 with probability `rate`, else 1 / (1 - rate), as a pure function of seed, chain, head and both positions."""
    chain_words = _mix(keys.seed[0] + keys.chains.astype(jnp.uint32) * jnp.uint32(0x9E3779B9))
    head_words = _mix(keys.seed[1] + keys.heads.astype(jnp.uint32) * jnp.uint32(0x85EBCA6B))
    pair_words = _mix(chain_words[:, None] ^ (head_words[None, :] * jnp.uint32(0xC2B2AE35)))
    query_words = query_positions.astype(jnp.uint32) * jnp.uint32(0x27D4EB2F)
    row_words = _mix(pair_words[:, :, None] + query_words[:, None, :])
    column_words = _mix(key_positions.astype(jnp.uint32) * jnp.uint32(0x165667B1) + jnp.uint32(0x61C88647))
    bits = _mix(row_words[:, :, :, None] ^ _mix(row_words[:, :, :, None] + column_words[:, None, None, :]))
    return (bits >= _threshold(rate)).astype(jnp.float32) / (1.0 - rate)


def drop_features(
    x: Float[Array, "B S M"], rate: float, key: Key[Array, ""] | None, positions: Int[Array, "B S"]
) -> Float[Array, "B S M"]:
    """Inverted dropout of token features, by chain, token position and feature; the identity without key or rate."""
    if key is None or rate == 0.0:
        return x
    chains, _, width = x.shape
    seed = dropout_seed(key)
    chain_words = _mix(seed[0] + chain_numbers(chains).astype(jnp.uint32) * jnp.uint32(0x9E3779B9))
    token_words = _mix(chain_words[:, None] ^ (positions.astype(jnp.uint32) * jnp.uint32(0x27D4EB2F)))
    feature_words = _mix(seed[1] + jnp.arange(width, dtype=jnp.uint32) * jnp.uint32(0x165667B1))
    bits = _mix(token_words[:, :, None] + feature_words[None, None, :])
    keep = bits >= _threshold(rate)
    return jnp.where(keep, x * jnp.asarray(1.0 / (1.0 - rate), x.dtype), jnp.zeros((), x.dtype))


def _threshold(rate: float) -> jax.Array:
    """Words below it are dropped."""
    return jnp.uint32(min(int(rate * 2**32), 2**32 - 1))
