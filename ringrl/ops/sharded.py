"""Attention of a sequence that lies on many devices: heads are exchanged (Ulysses), keys go round (ring), or both.

Ring: both sequence axes of the mesh are one ring. Ulysses: both exchange heads. Hybrid (Fang and Zhao 2024, arXiv
2405.07719): the `head` axis exchanges heads and the `ring` axis is the ring.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, UInt32

from ringrl.errors import RingRLError
from ringrl.ops.config import Layout, Strategy
from ringrl.ops.dropout import DropoutKeys
from ringrl.ops.kernels import choose_kernel, computing_device
from ringrl.ops.layouts import dealing_order
from ringrl.ops.masks import Labels
from ringrl.ops.operands import LocalOptions, Operands
from ringrl.ops.parts import chain_numbers, inside_mesh, numbers
from ringrl.ops.ring import Ring, ring_attention
from ringrl.ops.ulysses import check_heads, heads_to_tokens, tokens_to_heads
from ringrl.types import BATCH_AXES, SEQUENCE_AXES

AXES_OF = {  # of the ring, and of the exchange of heads
    Strategy.ring: (SEQUENCE_AXES, ()),
    Strategy.ulysses: ((), SEQUENCE_AXES),
    Strategy.hybrid: (("ring",), ("head",)),
}


def ring_size(strategy: Strategy, mesh: jax.sharding.Mesh) -> int:
    """The devices that a layout deals steps to."""
    return _size(mesh, AXES_OF[strategy][0])


def step_order(strategy: Strategy, layout: Layout, steps: int, mesh: jax.sharding.Mesh) -> Int[np.ndarray, " padded"]:
    """The order in which a loader deals the steps of a chain, filled up so that no device has fewer than another."""
    stretches = _size(mesh, SEQUENCE_AXES) * (2 if layout is Layout.zigzag else 1)
    return dealing_order(layout, steps + -steps % stretches, ring_size(strategy, mesh))


def sharded_attention(
    strategy: Strategy,
    mesh: jax.sharding.Mesh | None,
    options: LocalOptions,
    operands: Operands,
    seed: UInt32[Array, "2"],
    *,
    in_order: bool = False,
) -> Float[Array, "B S H D"]:
    """Global arrays in and out, split over the mesh: chains over data x fsdp, tokens over ring x head.

    Inside `jax.shard_map`, what `attention_of_part` gives. `in_order` says that token t has position t, so that a
    window bounds the hops. Any S: tokens that belong to no segment fill it up. Raises RingRLError for a mesh that lacks
    an axis, and chains or heads that do not divide.
    """
    mesh = _check_mesh(strategy, mesh)
    if inside_mesh():
        return attention_of_part(strategy, mesh, options, operands, seed, in_order=in_order)
    ring_devices, head_devices = (_size(mesh, axes) for axes in AXES_OF[strategy])
    batch_devices = _size(mesh, BATCH_AXES)
    chains, length = operands.query.shape[:2]
    if chains % batch_devices:
        raise RingRLError(
            f"{chains} chains do not divide among mesh.data x mesh.fsdp = {batch_devices} devices: "
            "change training.batch_size or the mesh."
        )
    extra = -length % (ring_devices * head_devices)
    tokens = PartitionSpec(BATCH_AXES, SEQUENCE_AXES)
    sharded = jax.shard_map(
        functools.partial(attention_of_part, strategy, mesh, options, in_order=in_order),
        mesh=mesh,
        in_specs=(tokens, PartitionSpec()),
        out_specs=tokens,
        check_vma=False,  # the rule of the whole ring is our own: there is nothing for JAX to infer
    )
    # Not by `jnp.pad`: should both labels be one array, XLA's partitioner would take one filling for the other.
    segments = operands.labels.segments
    segments = jnp.concatenate([segments, jnp.full((chains, extra), -1, segments.dtype)], axis=1)
    operands = jax.tree.map(lambda x: _lengthen(x, extra), operands)
    operands = dataclasses.replace(operands, labels=Labels(operands.labels.positions, segments))
    return sharded(operands, seed)[:, :length]


def attention_of_part(
    strategy: Strategy,
    mesh: jax.sharding.Mesh,
    options: LocalOptions,
    operands: Operands,
    seed: UInt32[Array, "2"],
    *,
    in_order: bool = False,
) -> Float[Array, "B S H D"]:
    """`sharded_attention` inside `jax.shard_map`: of this device's chains and tokens, as many as on every other."""
    ring_axes, head_axes = AXES_OF[strategy]
    ring_devices, head_devices = _size(mesh, ring_axes), _size(mesh, head_axes)
    query, labels = operands.query, operands.labels
    check_heads(query.shape[2], head_devices)
    ring_tokens = query.shape[1] * head_devices  # of one device of the ring, when heads are exchanged
    ring = Ring(ring_axes, ring_devices, _hops(ring_devices, ring_tokens, options, in_order))
    options = options._replace(kernel=choose_kernel(options, computing_device(mesh), query, ring_tokens))
    if head_devices > 1:
        labels = jax.tree.map(lambda label: jax.lax.all_gather(label, head_axes, axis=1, tiled=True), labels)
    query, key, value = (tokens_to_heads(x, head_axes, head_devices) for x in (query, operands.key, operands.value))
    heads = numbers(query.shape[2], head_axes) if head_axes else jnp.arange(query.shape[2])
    dropout = DropoutKeys(seed, chain_numbers(query.shape[0]), heads)
    mixed = ring_attention(ring, options, Operands(query, key, value, labels), dropout)
    return heads_to_tokens(mixed, head_axes, head_devices)


def _hops(devices: int, tokens: int, options: LocalOptions, in_order: bool) -> int:
    """One fewer than the devices, or as many as a causal window reaches back."""
    if not (in_order and options.causal and options.window is not None):
        return devices - 1
    return min(devices - 1, math.ceil((options.window - 1) / tokens))


def _check_mesh(strategy: Strategy, mesh: jax.sharding.Mesh | None) -> jax.sharding.Mesh:
    if mesh is None:
        raise RingRLError(f"attention.strategy={strategy} needs a mesh: use ringrl.make_mesh, or blockwise.")
    check_axes(f"attention.strategy={strategy}", mesh)
    return mesh


def check_axes(what: str, mesh: jax.sharding.Mesh) -> None:
    """Raises RingRLError, which begins with `what`, for a mesh that lacks an axis."""
    missing = [axis for axis in (*BATCH_AXES, *SEQUENCE_AXES) if axis not in mesh.shape]
    if missing:
        raise RingRLError(
            f"{what}: the mesh has axes {tuple(mesh.shape)} and lacks {missing[0]!r}: use ringrl.make_mesh."
        )


def _size(mesh: jax.sharding.Mesh, axes: tuple[str, ...]) -> int:
    return math.prod(mesh.shape[axis] for axis in axes)


def _lengthen(x: jax.Array, extra: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (0, extra), *((0, 0),) * (x.ndim - 2))) if extra else x
