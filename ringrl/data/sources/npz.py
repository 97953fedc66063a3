"""Safe reading of `.npz` files of any origin: nothing is unpickled, and the memory of each array is limited."""

import errno
import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ringrl.errors import RingRLError

_FORMAT = np.lib.format
_HEADERS = {(1, 0): _FORMAT.read_array_header_1_0, (2, 0): _FORMAT.read_array_header_2_0}
_NAMES_SHOWN = 8


def read_npz(path: Path, keys: Sequence[str], largest: int) -> dict[str, np.ndarray]:
    """Read the arrays of these keys, read-only, of any shape and real dtype; other members are ignored.

    Raises `RingRLError`, naming file and key, for a file that cannot be read or is damaged, a missing key, Python
    objects (never unpickled), anything but numbers, and an array of more than `largest` bytes (before it is read).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {key: _read_array(archive, path, key, largest) for key in keys}
    except RingRLError:
        raise
    except Exception as error:  # any error of zipfile, zlib and numpy's parser
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a seek before the start
            raise RingRLError(
                f"{path}: cannot be read ({error.strerror}); make it readable, or move it away."
            ) from error
        raise _damaged(path, " ".join(f"{type(error).__name__}: {error}".split())[:160]) from error


def _read_array(archive: zipfile.ZipFile, path: Path, key: str, largest: int) -> np.ndarray:
    try:
        member = archive.getinfo(f"{key}.npy")
    except KeyError:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        shown = ", ".join(map(repr, names[:_NAMES_SHOWN])) + (", ..." if len(names) > _NAMES_SHOWN else "")
        raise RingRLError(
            f"{path}: holds no array {key!r}, only {shown or 'nothing'}; record it, or move that file away."
        ) from None
    if member.file_size > largest:
        raise RingRLError(
            f"{path}: {key!r} says it takes {member.file_size} bytes, {largest} are the most that its steps can; "
            "move that file away."
        )
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Compressed members are decompressed at once, whatever their size; numpy writes none of the others.
        raise _damaged(path, f"{key!r} is compressed in a way that numpy does not use")
    with archive.open(member) as file:
        data = file.read(member.file_size)  # decompresses no more than that, whatever the stream contains
    stream = io.BytesIO(data)
    version = _FORMAT.read_magic(stream)
    if version not in _HEADERS:
        raise _damaged(path, f"{key!r} is of .npy version {version[0]}.{version[1]}")
    shape, fortran_order, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise RingRLError(f"{path}: {key!r} holds Python objects, which are never unpickled: save it as numbers.")
    if dtype.kind not in "fiub":
        raise RingRLError(f"{path}: {key!r} holds {dtype}, not numbers; save it as float32.")
    count = math.prod(shape)
    if count * dtype.itemsize != len(data) - stream.tell():
        raise _damaged(path, f"{key!r} says shape {shape} {dtype}, and holds {len(data) - stream.tell()} bytes")
    return np.frombuffer(data, dtype, count, stream.tell()).reshape(shape, order="F" if fortran_order else "C")


def _damaged(path: Path, what: str) -> RingRLError:
    return RingRLError(f"{path}: damaged, or not an npz file ({what}); copy it anew, or move it away.")
