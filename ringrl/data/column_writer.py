"""Writing one column of a store: a `.npy` file in one pass, with a hash of its rows."""

import errno
import hashlib
import math
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ringrl.errors import RingRLError

_FORMAT = np.lib.format


def make_write_error(path: Path, error: OSError) -> RingRLError:
    """The one-line error for a failed write of `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RingRLError(f"{path}: the disk is full. Free some space, or point RINGRL_DATA at another disk.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RingRLError(
            f"{path}: cannot be written ({error.strerror}). Make its folder writable, or point RINGRL_DATA at another."
        )
    return RingRLError(f"{path}: cannot be written ({error.strerror or error}). Point RINGRL_DATA elsewhere.")


def content_hash() -> Any:
    """The hash of a column's bytes before any are added; `described_digest` finishes it."""
    return hashlib.blake2b(digest_size=16)


def described_digest(content: Any, dtype: np.dtype, row_shape: tuple[int, ...]) -> str:
    """The digest of a column: of its rows in `content`, their dtype and their shape."""
    described = content.copy()
    described.update(f"{dtype.str}{row_shape}".encode())
    return described.hexdigest()


def raw_bytes(values: np.ndarray) -> memoryview:
    """The memory of an array in C order as bytes, without a copy if the array is contiguous."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


class ColumnWriter:
    """Appends rows of a fixed shape and dtype to a `.npy` file of initially unknown length.

    The header is written twice; numpy pads it so that its size does not depend on the number of rows.
    """

    def __init__(self, path: Path, dtype: np.dtype, row_shape: tuple[int, ...]) -> None:
        self.path, self.dtype, self.row_shape, self.rows = path, np.dtype(dtype), row_shape, 0
        self._hash = content_hash()
        self._file = path.open("wb", buffering=1 << 20)
        self._header_size = self._write_header()

    @property
    def row_bytes(self) -> int:
        """Bytes per row."""
        return self.dtype.itemsize * math.prod(self.row_shape)

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
        data = raw_bytes(np.asarray(rows, self.dtype))
        self._file.write(data)
        self._hash.update(data)
        self.rows += len(rows)

    def close(self) -> None:
        """Write the final header and close the file; no effect the second time."""
        if not self._file.closed:
            assert self._write_header() == self._header_size
            self._file.close()

    def digest(self) -> str:
        """Hash of the rows, their dtype and their shape."""
        return described_digest(self._hash, self.dtype, self.row_shape)

    def __enter__(self) -> "ColumnWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
