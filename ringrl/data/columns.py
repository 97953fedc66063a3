"""One column of a store: a `.npy` file written in one pass with a hash, and read through a memory map."""

import errno
import hashlib
import mmap
from pathlib import Path
from types import TracebackType

import numpy as np

from ringrl.errors import RingRLError

_FORMAT = np.lib.format


def disk_error(path: Path, error: OSError) -> RingRLError:
    """The one line that a user sees when writing `path` fails."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RingRLError(f"{path}: the disk is full. Free some space, or point RINGRL_DATA at another disk.")
    return RingRLError(f"{path}: cannot be written ({error.strerror or error}).")


class ColumnWriter:
    """Appends rows of a fixed shape and dtype to a `.npy` file whose length need not be known beforehand.

    The header is written twice: numpy pads it so that its size does not depend on the number of rows.
    """

    def __init__(self, path: Path, dtype: np.dtype, row_shape: tuple[int, ...]) -> None:
        self.path, self.dtype, self.row_shape, self.rows = path, np.dtype(dtype), row_shape, 0
        self._hash = hashlib.blake2b(digest_size=16)
        self._file = path.open("wb", buffering=1 << 20)
        self._header_size = self._write_header()

    def _write_header(self) -> int:
        self._file.seek(0)
        header = {
            "descr": _FORMAT.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.rows, *self.row_shape),
        }
        _FORMAT.write_array_header_1_0(self._file, header)
        return self._file.tell()

    def append(self, rows: np.ndarray) -> None:
        """Append rows of shape (n, *row_shape)."""
        assert rows.shape[1:] == self.row_shape
        data = np.ascontiguousarray(rows, self.dtype).tobytes()
        self._file.write(data)
        self._hash.update(data)
        self.rows += len(rows)

    def close(self) -> None:
        """Fix the header and close the file; nothing happens the second time."""
        if not self._file.closed:
            assert self._write_header() == self._header_size
            self._file.close()

    def digest(self) -> str:
        """Hash of the rows, their dtype and their shape."""
        described = self._hash.copy()
        described.update(f"{self.dtype.str}{self.row_shape}".encode())
        return described.hexdigest()

    def __enter__(self) -> "ColumnWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class MappedColumn:
    """A `.npy` file seen as a read-only array; `release` gives its resident pages back to the system.

    Raises `RingRLError` when the file is missing, is not the column expected, or is shorter than it says.
    """

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        remedy = f"The store at {path.parent} is damaged: delete the folder, it is built again from its source."
        if not path.is_file():
            raise RingRLError(f"{path}: this column is missing. {remedy}")
        with path.open("rb") as file:
            try:
                if _FORMAT.read_magic(file) != (1, 0):
                    raise ValueError("unknown version")
                found_shape, _, found_dtype = _FORMAT.read_array_header_1_0(file)
            except ValueError as error:
                raise RingRLError(f"{path}: not a column of numbers ({error}). {remedy}") from error
            offset = file.tell()
            expected = offset + int(np.prod(shape)) * np.dtype(dtype).itemsize
            if found_shape != shape or found_dtype != dtype or path.stat().st_size != expected:
                raise RingRLError(
                    f"{path}: holds {found_shape} {found_dtype} in {path.stat().st_size} bytes where metadata.json "
                    f"says {shape} {np.dtype(dtype)} in {expected}. {remedy}"
                )
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.array = np.frombuffer(self._map, dtype, offset=offset).reshape(shape)

    def release(self) -> None:
        """Drop the resident pages (they stay in the page cache and come back when touched)."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
