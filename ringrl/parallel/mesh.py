"""One mesh of four axes: replicas, parameter shards, the ring, and Ulysses heads (docs/design.md, Contracts)."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils

from ringrl.errors import RingRLError
from ringrl.parallel.config import AXES as AXES
from ringrl.parallel.config import MeshConfig as MeshConfig
from ringrl.parallel.neighbors import order_ring


def make_mesh(data: int = 1, fsdp: int = 1, ring: int = 1, head: int = 1) -> jax.sharding.Mesh:
    """A mesh of axes data, fsdp, ring, head over this run's devices, or over the first ones if it needs fewer.

    Args:
        data: replicas of the parameters, each with a shard of the batch.
        fsdp: shards of the batch and of the parameters.
        ring: shards of every sequence, whose keys and values are passed around the ring.
        head: shards of every sequence that exchange tokens for heads.

    Each is a number of devices; -1, at most once, takes the remaining devices.

    Returns:
        The mesh, in which neighbors on the ring are adjacent in a TPU's network.

    Raises:
        RingRLError: there are too few devices, or -1 does not divide; the error names sizes that work.
    """
    config = MeshConfig(data, fsdp, ring, head)
    sizes = [getattr(config, axis) for axis in AXES]
    available = jax.device_count()
    named = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        if available % named:
            raise RingRLError(
                f"mesh: {available} devices are not a multiple of {named}, so mesh.{AXES[sizes.index(-1)]}=-1 has no "
                f"value; {_find_nearest_divisor(available, named)} would work."
            )
        sizes[sizes.index(-1)] = available // named
    elif named > available:
        wanted = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True) if size > 1)
        raise RingRLError(
            f"mesh {wanted} needs {named} devices and there are {available}: make the mesh smaller, or on a CPU set "
            f"JAX_NUM_CPU_DEVICES={named} to try it with that many virtual devices."
        )
    return arrange_devices(tuple(sizes), jax.devices()[: math.prod(sizes)])


def arrange_devices(sizes: tuple[int, ...], devices: Sequence[Any]) -> jax.sharding.Mesh:
    """Arrange the devices as a mesh of AXES, with neighbors adjacent in the network where it is a torus.

    JAX gives an axis whole axes of a TPU's torus, or parts of them where none fit. Along its part of the torus the ring
    then goes from neighbor to neighbor.
    """
    kinds = (jax.sharding.AxisType.Auto,) * len(AXES)
    try:
        laid = jax.make_mesh(sizes, AXES, axis_types=kinds, devices=devices).devices
    except NotImplementedError:
        laid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return jax.sharding.Mesh(order_ring(laid, AXES.index("ring")), AXES, axis_types=kinds)


def _find_nearest_divisor(available: int, named: int) -> int:
    """The divisor of `available` closest to `named`."""
    return min((n for n in range(1, available + 1) if available % n == 0), key=lambda n: abs(n - named))
