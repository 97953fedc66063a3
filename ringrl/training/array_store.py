"""Arrays on disk: the one file that touches orbax.

Trees are stored by path as nested dictionaries, so they read back without being known beforehand. The files have a
CRC-32 each: a flipped bit is noticed, and orbax, whose background reads fail noisily, is never given a damaged file.
Where there are several processes all of them call `ArrayWrite` and `read_arrays`, for the same paths in one order.
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

if TYPE_CHECKING:  # it takes most of a second to import: a run's first step does not wait for its first checkpoint
    import orbax.checkpoint as ocp

from ringrl.errors import RingRLError
from ringrl.training.disk import flush

Nested = dict[str, Any]

_PATTERN = re.compile(r"[\[\]*?\\]")
_READ_BYTES = 1 << 22
_writes = itertools.count()


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


class _WithoutReports(logging.Filter):
    """Leaves out orbax's traces of faults in its threads: `ArrayWrite.finish` raises them."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and "orbax" in Path(record.pathname).parts)


_WITHOUT_REPORTS = _WithoutReports()


def without_patterns(path: Path) -> Path:
    """The same folder by a path in which orbax finds no pattern: it looks for its files by a glob below the whole path.

    Where a name on the way has a bracket or the like, the way leads through a link of this user's in the temporary
    folder, named by what it leads to, so that it is the same in every process. Raises RingRLError where that cannot be.
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
    """A tree of arrays on its way to a new folder.

    Once made, the arrays given may be donated: orbax has copied them to the host, or holds the host's own buffers so
    that they are not reused.
    """

    def __init__(self, path: Path, tree: Nested) -> None:
        import orbax.checkpoint as ocp

        self._path = path
        logging.getLogger("absl").addFilter(_WITHOUT_REPORTS)  # once, however often it is added
        raw = jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree)
        # Its background barriers are named by the folder's last part, which every checkpoint has: a number tells them
        # apart. Directories made in the background would need one more of them.
        processes = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=f"ringrl_{next(_writes)}")
        self._writer = ocp.AsyncCheckpointer(
            ocp.PyTreeCheckpointHandler(multiprocessing_options=processes),
            async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
            multiprocessing_options=processes,
        )
        self._writer.save(without_patterns(path), args=ocp.args.PyTreeSave(raw))

    def finish(self) -> None:
        """Wait until the arrays of all processes are in the folder; raises what the disk did. Call it once."""
        try:
            self._writer.wait_until_finished()
        finally:
            with contextlib.suppress(Exception):  # a second report of the same fault
                self._writer.close()

    def checksums(self) -> dict[str, int]:
        """The CRC-32 of each file of the finished folder, all of it flushed to the disk."""
        for path in self._path.rglob("*"):
            flush(path)
        return _checksums(self._path)


def verify_arrays(path: Path, checksums: dict[str, int]) -> None:
    """Raises ValueError where a file that a finished `ArrayWrite` left is absent or changed."""
    found = _checksums(path)
    wrong = [name for name, value in checksums.items() if found.get(name) != value]
    if wrong:
        raise ValueError(f"{wrong[0]} is {'changed' if wrong[0] in found else 'missing'}")


def stored_shapes(path: Path) -> Nested:
    """Shape and dtype of each array of a verified folder, a key's as its raw data."""
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as reader:
        stored = reader.metadata(without_patterns(path)).item_metadata.tree
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), stored)


def read_arrays(path: Path, shapes: Nested, target: Nested | None = None) -> Nested:
    """Read a verified folder of these `stored_shapes`: numpy arrays, or jax arrays in the shardings of `target`.

    A process reads only what its own devices hold; the mesh that wrote the folder does not matter. A key comes as its
    raw data.
    """
    import orbax.checkpoint as ocp

    leaves = {path_names(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(target)}
    # Without arguments orbax would ask for the devices that wrote the checkpoint.
    arguments = jax.tree_util.tree_map_with_path(lambda p, _: _restore_argument(leaves.get(path_names(p))), shapes)
    with ocp.PyTreeCheckpointer() as reader:
        return reader.restore(without_patterns(path), restore_args=arguments)


def _restore_argument(leaf: Any) -> "ocp.RestoreArgs":
    import orbax.checkpoint as ocp

    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(sharding=sharding)  # a key's names no axis, so it fits the raw data


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
