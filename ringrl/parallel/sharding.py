"""Sharding rules for parameters, their optimizer state, and batches."""

import itertools
import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ringrl.devices import with_automatic_axes
from ringrl.types import BATCH_AXES, PARAMETER_AXES, SEQUENCE_AXES

# Suffix of a parameter's path, and the dimensions that may be split; the first that divides is. Layers are stacked on
# dimension 0, which is never split, because a scan takes one layer after the other. Arrays without a rule are
# replicated: vectors, counters and keys.
RULES: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r"layers/.*kernel", (1, 2)),  # (L, in, out)
    (r"embedding/.*embedding", (1, 0)),  # (rows, M)
    (r"kernel", (1, 0)),  # (in, out)
)
BATCH = PartitionSpec(BATCH_AXES, SEQUENCE_AXES)  # of every array of a batch: (B, P, ...)


def leaf_spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The PartitionSpec over fsdp x ring x head of the parameter (or its moment) at `path`, names joined by "/".

    If no dimension divides among all of them, it is split over as many of these axes as one does divide among.
    """
    dimensions = next((found for end, found in RULES if re.search(f"(^|/){end}$", path)), ())
    for axes in _axes_most_devices_first(mesh):
        for dimension in dimensions:
            if dimension < len(shape) and shape[dimension] % _size(mesh, axes) == 0:
                return PartitionSpec(*(None,) * dimension, axes)
    return PartitionSpec()


def parameter_specs(tree: Any, mesh: Mesh) -> Any:
    """The PartitionSpec of each leaf of a tree of parameters, or of a state that holds such trees."""

    def spec(path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
        return leaf_spec(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape, mesh)

    return jax.tree_util.tree_map_with_path(spec, tree)


def parameter_shardings(tree: Any, mesh: Mesh) -> Any:
    """`parameter_specs` as shardings over the mesh."""
    mesh = with_automatic_axes(mesh)
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), parameter_specs(tree, mesh))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: chains over data x fsdp, their steps over ring x head."""
    return NamedSharding(with_automatic_axes(mesh), BATCH)


def split_axes(spec: PartitionSpec) -> tuple[str, ...]:
    """The mesh axes over which a spec splits."""
    names = ((entry,) if isinstance(entry, str) else entry for entry in spec if entry is not None)
    return tuple(itertools.chain.from_iterable(names))


class ShardingRow(NamedTuple):
    """One row of `explain`."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    spec: PartitionSpec
    bytes_per_device: int


def explain(tree: Any, mesh: Mesh) -> Iterable[ShardingRow]:
    """Every leaf of a tree of parameters or of a state, with its shard on each device."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = leaf_spec(name, leaf.shape, mesh)
        size = math.prod(NamedSharding(mesh, spec).shard_shape(leaf.shape)) * leaf.dtype.itemsize
        yield ShardingRow(name, leaf.shape, str(leaf.dtype), spec, size)


def bytes_per_device(tree: Any, mesh: Mesh | None) -> int:
    """Bytes per device of a tree of parameters or of a state; all of it without a mesh."""
    if mesh is None:
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    return sum(placed.bytes_per_device for placed in explain(tree, mesh))


def _axes_most_devices_first(mesh: Mesh) -> list[tuple[str, ...]]:
    axes = [axis for axis in PARAMETER_AXES if mesh.shape[axis] > 1]
    groups = [group for count in range(1, len(axes) + 1) for group in itertools.combinations(axes, count)]
    return sorted(groups, key=lambda group: -_size(mesh, group))


def _size(mesh: Mesh, axes: tuple[str, ...]) -> int:
    return math.prod(mesh.shape[axis] for axis in axes)
