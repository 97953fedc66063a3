"""Meshes whose axes are explicit, JAX's default: what is written for automatic axes runs on them too."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ringrl.devices import with_automatic_axes


def on_automatic_axes(
    fn: Callable[[Mesh], Callable[..., jax.Array]], mesh: Mesh, spec: PartitionSpec, *arrays: Any
) -> jax.Array:
    """`fn(mesh)(*arrays)`, whose result is split by `spec` over `mesh`, with automatic axes in place of explicit ones.

    Where arrays, or the mesh of `jax.set_mesh`, say explicitly how they are split, so does the result.
    """
    call = fn(with_automatic_axes(mesh))
    leaves = jax.tree.leaves(arrays)
    if not any(_is_explicit(found) for found in (jax.sharding.get_abstract_mesh(), *map(_mesh_of, leaves))):
        return call(*arrays)
    on_explicit: Any = jax.sharding.auto_axes(call, out_sharding=NamedSharding(mesh, spec))
    return on_explicit(*arrays)


def _mesh_of(array: Any) -> Any:
    return jax.typeof(array).sharding.mesh


def _is_explicit(mesh: Any) -> bool:
    return AxisType.Explicit in mesh.axis_types
