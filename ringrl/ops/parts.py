"""Whether code runs inside `jax.shard_map` over the mesh, and which chains and heads a device has there."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ringrl.types import BATCH_AXES, SEQUENCE_AXES


def inside_mesh() -> bool:
    """Whether the code being traced works on one device's chains and tokens."""
    return {*BATCH_AXES, *SEQUENCE_AXES} <= set(jax.sharding.get_abstract_mesh().manual_axes)


def numbers(count: int, axes: tuple[str, ...]) -> Int[Array, " count"]:
    """This device's `count` chains or heads, numbered over all devices along the axes; inside `jax.shard_map`."""
    shape = jax.sharding.get_abstract_mesh().shape
    first = jax.lax.axis_index(axes) * count if math.prod(shape[axis] for axis in axes) > 1 else 0
    return first + jnp.arange(count, dtype=jnp.int32)


def chain_numbers(count: int) -> Int[Array, " count"]:
    """The chains at hand, numbered over the whole batch."""
    return numbers(count, BATCH_AXES) if inside_mesh() else jnp.arange(count, dtype=jnp.int32)
