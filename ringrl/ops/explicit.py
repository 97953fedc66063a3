"""Runs code written for automatic mesh axes on meshes whose axes are explicit, which is JAX's default."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ringrl.devices import with_automatic_axes


def on_automatic_axes(fn: Callable[..., jax.Array], mesh: Mesh | None, spec: PartitionSpec, *arrays: Any) -> jax.Array:
    """`fn(mesh, *arrays)` with automatic axes in place of explicit ones; its result is split by `spec` over `mesh`.

    Where arrays, or the mesh of `jax.set_mesh`, say explicitly how they are split, so does the result; without a mesh
    of its own it is split over theirs.
    """
    call = functools.partial(fn, None if mesh is None else with_automatic_axes(mesh))
    meshes = (jax.sharding.get_abstract_mesh(), *map(_mesh_of, jax.tree.leaves(arrays)))
    explicit = next((found for found in meshes if _is_explicit(found)), None)
    if explicit is None:
        return call(*arrays)
    on_explicit: Any = jax.sharding.auto_axes(call, out_sharding=NamedSharding(mesh or explicit, spec))
    return on_explicit(*arrays)


def _mesh_of(array: Any) -> Any:
    return jax.typeof(array).sharding.mesh


def _is_explicit(mesh: Any) -> bool:
    return AxisType.Explicit in mesh.axis_types
