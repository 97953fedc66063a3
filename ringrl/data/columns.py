"""One column of a store: a `.npy` file, read through a memory map."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np

from ringrl.errors import RingRLError

_FORMAT = np.lib.format

REMEDY = "Move the folder away, and import it again (a Minari set's comes back by itself)."


class UnreadableFileError(RingRLError):
    """A file cannot be read because of the system, so its contents are unknown."""


def make_read_error(path: Path, error: OSError) -> UnreadableFileError:
    """The one-line error for a failed read of `path`."""
    return UnreadableFileError(
        f"{path}: cannot be read now ({error.strerror or error}). See to the file's rights and its disk."
    )


class MappedColumn:
    """A `.npy` file mapped as a read-only array; `release` returns its resident pages to the system.

    Raises `RingRLError` if the file is missing, is not the expected column, or is shorter than its header states, and
    `UnreadableFileError` if the system cannot read it.
    """

    keeper: Any = None  # kept alive while the file is mapped, such as a temporary folder

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        try:
            self._open(path, np.dtype(dtype), shape)
        except OSError as error:
            raise make_read_error(path, error) from error

    def _open(self, path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        remedy = f"The store at {path.parent} is damaged. {REMEDY}"
        if not path.is_file():
            raise RingRLError(f"{path}: this column is missing. {remedy}")
        self.path = path
        with path.open("rb") as file:
            try:
                if _FORMAT.read_magic(file) != (1, 0):
                    raise ValueError("unknown version")
                found_shape, by_columns, found_dtype = _FORMAT.read_array_header_1_0(file)
                if by_columns and len(found_shape) > 1:
                    raise ValueError("in Fortran order")
            except ValueError as error:
                raise RingRLError(f"{path}: not a column of numbers ({error}). {remedy}") from error
            offset = file.tell()
            expected = offset + int(np.prod(shape)) * dtype.itemsize
            if found_shape != shape or found_dtype != dtype or path.stat().st_size != expected:
                raise RingRLError(
                    f"{path}: holds {found_shape} {found_dtype} in {path.stat().st_size} bytes where metadata.json "
                    f"says {shape} {dtype} in {expected}. {remedy}"
                )
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.array = np.frombuffer(self._map, dtype, offset=offset).reshape(shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows."""
        return self.array.nbytes

    def release(self) -> None:
        """Drop the resident pages (they stay in the page cache and are mapped again when touched)."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
