"""Exact attention on one device with memory linear in the sequence: a ring of one."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from ringrl.ops.kernels import DropoutKeys, Labels, LocalOptions
from ringrl.ops.parts import chain_numbers
from ringrl.ops.ring import Ring, ring_attention


def blockwise_attention(
    query: Float[Array, "B S H D"],
    key: Float[Array, "B S K D"],
    value: Float[Array, "B S K D"],
    positions: Int[Array, "B S"],
    segments: Int[Array, "B S"],
    options: LocalOptions,
    seed: UInt32[Array, "2"],
) -> Float[Array, "B S H D"]:
    """The values and gradients of `dense_attention`, one pair of blocks at a time; any lengths."""
    dropout = DropoutKeys(seed, chain_numbers(query.shape[0]), jnp.arange(query.shape[2]))
    return ring_attention(Ring(), options, query, key, value, Labels(positions, segments), dropout)
