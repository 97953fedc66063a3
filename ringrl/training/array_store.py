"""Storage of arrays on disk; the only file that uses orbax.

Trees are stored by path as nested dictionaries, so they can be read without knowing their structure. Each file has a
CRC-32: a flipped bit is detected, and orbax, whose background reads fail noisily, never reads a damaged file. With
several processes all of them call `ArrayWrite` and `read_arrays`, for the same paths in the same order.
"""

import contextlib
import hashlib
import itertools
import logging
import os
import re
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:  # the import takes most of a second, and a run's first step does not wait for its first checkpoint
    import orbax.checkpoint as ocp

from ringrl.errors import RingRLError
from ringrl.training.disk import flush

Nested = dict[str, Any]

_PATTERN = re.compile(r"[\[\]*?\\]")
_READ_BYTES = 1 << 22
_writes = itertools.count()


def to_nested_dicts(tree: Any) -> Nested:
    """Convert a pytree to nested dictionaries keyed by the names along each leaf's path; empty nodes are dropped."""
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


class _DropTracebacks(logging.Filter):
    """Logging filter that drops orbax's tracebacks of errors in its threads: `ArrayWrite.finish` raises them."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and "orbax" in Path(record.pathname).parts)


_WITHOUT_REPORTS = _DropTracebacks()


def find_glob_free_path(path: Path) -> Path:
    """A path to the same folder without glob patterns, because orbax globs over the whole path.

    If a name in the path contains a bracket or the like, the result is a symbolic link in the user's temporary folder,
    named by its target so that it is the same in every process. Raises RingRLError if the link cannot be made.
    """
    last = max((index for index, part in enumerate(path.parts) if _PATTERN.search(part)), default=-1)
    if last < 0:
        return path
    above = Path(*path.parts[: last + 1])
    name = hashlib.sha256(os.fsencode(above)).hexdigest()[:24]
    link = Path(tempfile.gettempdir()) / f"ringrl-{os.getuid()}-{name}"
    try:
        link.symlink_to(above)
    except OSError as error:
        ours = link.is_symlink() and link.lstat().st_uid == os.getuid() and os.readlink(link) == str(above)
        if not ours:
            raise RingRLError(
                f"{path} has a name that needs the link {link}, which cannot be made ({error.strerror}): remove it, "
                "set TMPDIR, or choose a folder without brackets and the like in its name."
            ) from error
    return link.joinpath(*path.parts[last + 1 :])


class ArrayWrite:
    """A background write of a tree of arrays to a new folder.

    Once constructed, the given arrays may be donated: orbax has copied them to the host, or holds the host buffers so
    that they are not reused.
    """

    def __init__(self, path: Path, tree: Nested) -> None:
        import orbax.checkpoint as ocp

        self._path = path
        logging.getLogger("absl").addFilter(_WITHOUT_REPORTS)  # added once, however often this runs
        raw = jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree)
        # orbax's background barriers are named by the folder's last part, which all checkpoints share: a number makes
        # them unique. Directories created in the background would need another barrier.
        processes = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=f"ringrl_{next(_writes)}")
        self._writer = ocp.AsyncCheckpointer(
            ocp.PyTreeCheckpointHandler(multiprocessing_options=processes),
            async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
            multiprocessing_options=processes,
        )
        self._writer.save(find_glob_free_path(path), args=ocp.args.PyTreeSave(raw))

    def finish(self) -> None:
        """Wait until the arrays of all processes are in the folder; raises the disk's errors. Call it once."""
        try:
            self._writer.wait_until_finished()
        finally:
            with contextlib.suppress(Exception):  # a second report of the same error
                self._writer.close()

    def checksums(self) -> dict[str, int]:
        """Flush the finished folder to disk, and return the CRC-32 of each file."""
        for path in self._path.rglob("*"):
            flush(path)
        return _checksums(self._path)


def verify_arrays(path: Path, checksums: dict[str, int]) -> None:
    """Raise ValueError if a file that a finished `ArrayWrite` left is missing or changed."""
    found = _checksums(path)
    wrong = [name for name, value in checksums.items() if found.get(name) != value]
    if wrong:
        raise ValueError(f"{wrong[0]} is {'changed' if wrong[0] in found else 'missing'}")


def stored_shapes(path: Path) -> Nested:
    """Shape and dtype of each array of a verified folder; of a random key, those of its raw data."""
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as reader:
        stored = reader.metadata(find_glob_free_path(path)).item_metadata.tree
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), stored)


def read_arrays(path: Path, shapes: Nested, target: Nested | None = None) -> Nested:
    """Read a verified folder with these `stored_shapes` as numpy arrays, or jax arrays sharded like `target`.

    A process reads only what its own devices hold; the mesh that wrote the folder does not matter. A random key is
    returned as its raw data.
    """
    import orbax.checkpoint as ocp

    leaves = {path_names(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(target)}
    # Without arguments orbax would require the devices that wrote the checkpoint.
    arguments = jax.tree_util.tree_map_with_path(lambda p, _: _restore_argument(leaves.get(path_names(p))), shapes)
    with ocp.PyTreeCheckpointer() as reader:
        return reader.restore(find_glob_free_path(path), restore_args=arguments)


def _restore_argument(leaf: Any) -> "ocp.RestoreArgs":
    import orbax.checkpoint as ocp

    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(sharding=sharding)  # a key's sharding names no axis, so it fits the raw data


def _checksums(folder: Path) -> dict[str, int]:
    """CRC-32 of every file below a folder, by relative path."""
    sums: dict[str, int] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            value = 0
            with path.open("rb") as file:
                while piece := file.read(_READ_BYTES):
                    value = zlib.crc32(piece, value)
            sums[path.relative_to(folder).as_posix()] = value
    return sums
