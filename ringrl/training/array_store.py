"""Arrays on disk: the one file that touches orbax.

Trees are stored by path as nested dictionaries, so they read back without being known beforehand; each array has
a CRC-32, so that a damaged file is noticed even where its container still opens.
"""

import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

Nested = dict[str, Any]


def nested(tree: Any) -> Nested:
    """Any pytree as nested dictionaries keyed by the names along each leaf's path; empty nodes vanish."""
    result: Nested = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *parents, last = path_names(path)
        node = result
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = leaf
    return result


def path_names(path: tuple[Any, ...]) -> tuple[str, ...]:
    """The names along a path of a pytree, as strings."""
    return tuple(jax.tree_util.keystr((entry,), simple=True) for entry in path)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed random key (stored as its raw data)."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def write_arrays(path: Path, tree: Nested) -> dict[str, int]:
    """Write a tree of arrays to a new folder; returns the CRC-32 of each array that this process holds whole."""
    raw = jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree)
    with ocp.PyTreeCheckpointer() as writer:
        writer.save(path, raw)
    return _checksums(raw)


def read_arrays(path: Path, checksums: dict[str, int], target: Nested | None = None) -> Nested:
    """Read a folder of `write_arrays`: numpy arrays, or jax arrays with the shardings of `target` where it has some.

    Raises ValueError where an array is absent or its CRC-32 is wrong, and whatever orbax raises on damage.
    """
    with ocp.PyTreeCheckpointer() as reader:
        stored = reader.metadata(path).item_metadata.tree
        leaves = {path_names(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(target)}
        # Without arguments orbax would ask for the devices that wrote the checkpoint.
        arguments = jax.tree_util.tree_map_with_path(lambda p, _: _restore_argument(leaves.get(path_names(p))), stored)
        tree = reader.restore(path, restore_args=arguments)
    found = _checksums(tree)
    names = {"/".join(path_names(p)) for p, _ in jax.tree_util.tree_leaves_with_path(tree)}
    wrong = [name for name, value in checksums.items() if name not in names or found.get(name, value) != value]
    if wrong:
        raise ValueError(f"array {wrong[0]} is absent or changed")
    return tree


def _restore_argument(leaf: Any) -> ocp.RestoreArgs:
    sharding = getattr(leaf, "sharding", None)
    if leaf is None or sharding is None or is_key(leaf):
        return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(sharding=sharding)


def _checksums(tree: Nested) -> dict[str, int]:
    return {
        "/".join(path_names(path)): zlib.crc32(np.ascontiguousarray(leaf).tobytes())
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if getattr(leaf, "is_fully_addressable", True)
    }
