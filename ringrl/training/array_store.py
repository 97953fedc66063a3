"""Arrays on disk: the one file that touches orbax.

Trees are stored by path as nested dictionaries, so they read back without being known beforehand. The files have a
CRC-32 each: a flipped bit is noticed, and orbax, whose background reads fail noisily, is never given a damaged file.
"""

import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

Nested = dict[str, Any]

_READ_BYTES = 1 << 22


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
    """Write a tree of arrays to a new folder; returns the CRC-32 of each of its files."""
    raw = jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree)
    with ocp.PyTreeCheckpointer() as writer:
        writer.save(path, raw)
    return _checksums(path)


def read_arrays(path: Path, checksums: dict[str, int], target: Nested | None = None) -> Nested:
    """Read a folder of `write_arrays`: numpy arrays, or jax arrays with the shardings of `target` where it has some.

    Raises ValueError where a file is absent or changed, before anything is read from it.
    """
    found = _checksums(path)
    wrong = [name for name, value in checksums.items() if found.get(name) != value]
    if wrong:
        raise ValueError(f"{wrong[0]} is {'changed' if wrong[0] in found else 'missing'}")
    leaves = {path_names(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(target)}
    with ocp.PyTreeCheckpointer() as reader:
        stored = reader.metadata(path).item_metadata.tree
        # Without arguments orbax would ask for the devices that wrote the checkpoint.
        arguments = jax.tree_util.tree_map_with_path(lambda p, _: _restore_argument(leaves.get(path_names(p))), stored)
        return reader.restore(path, restore_args=arguments)


def _restore_argument(leaf: Any) -> ocp.RestoreArgs:
    sharding = getattr(leaf, "sharding", None)
    if leaf is None or sharding is None or is_key(leaf):
        return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(sharding=sharding)


def _checksums(folder: Path) -> dict[str, int]:
    """CRC-32 of every file below a folder, by its path there."""
    sums: dict[str, int] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            value = 0
            with path.open("rb") as file:
                while piece := file.read(_READ_BYTES):
                    value = zlib.crc32(piece, value)
            sums[path.relative_to(folder).as_posix()] = value
    return sums
