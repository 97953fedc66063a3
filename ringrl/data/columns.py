"""Columns of a store: `.npy` files that are written in one pass with a hash, and read through a memory map."""

import bisect
import errno
import hashlib
import math
import mmap
from pathlib import Path
from types import TracebackType
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


class JoinedColumn:
    """Mapped columns concatenated and read as one array: by an index, a slice, an array of indices, or `take`.

    A slice within one column is a view; a slice across columns is a copy.
    """

    def __init__(self, parts: list[MappedColumn]) -> None:
        self.parts = parts
        self._starts = np.cumsum([0, *(len(part.array) for part in parts)]).tolist()

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def dtype(self) -> np.dtype:
        """The dtype of each part."""
        return self.parts[0].array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the concatenation."""
        return (len(self), *self.parts[0].array.shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes of the rows of all parts."""
        return sum(part.nbytes for part in self.parts)

    def release(self) -> None:
        """Drop the resident pages of all parts."""
        for part in self.parts:
            part.release()

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._between(start, max(start, stop))
            rows = np.arange(start, stop, step)
        return self.take(rows)

    def take(self, rows: Any, axis: int = 0) -> np.ndarray:
        """The rows with these indices, of any shape; along axis 0 only."""
        if axis != 0:
            raise ValueError(f"axis={axis}: a joined column is read along axis 0")
        rows = np.asarray(rows)
        if rows.dtype.kind not in "iu" and rows.size:
            raise IndexError(f"a joined column is read by integers, not by {rows.dtype}")
        flat = rows.reshape(-1).astype(np.int64, copy=False)
        if not len(flat):
            return np.empty((*rows.shape, *self.shape[1:]), self.dtype)
        first, last = int(flat.min()), int(flat.max())
        if first < 0:
            flat = np.where(flat < 0, flat + len(self), flat)
            first, last = int(flat.min()), int(flat.max())
        if first < 0 or last >= len(self):
            raise IndexError(f"rows {first}..{last} of a joined column of {len(self)}")
        low, high = self._find_part(first), self._find_part(last)
        if low == high:
            taken = self.parts[low].array.take(flat - self._starts[low], axis=0)
        else:
            taken = np.empty((len(flat), *self.shape[1:]), self.dtype)
            which = np.searchsorted(self._starts, flat, side="right") - 1
            for part in np.unique(which):
                here = np.flatnonzero(which == part)
                taken[here] = self.parts[part].array.take(flat[here] - self._starts[part], axis=0)
        taken = taken.reshape(*rows.shape, *self.shape[1:])
        return taken if rows.ndim else taken[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a joined column is several arrays: it becomes one by copying")
        return self[:].astype(dtype or self.dtype, copy=bool(copy))

    def _find_part(self, row: int) -> int:
        return bisect.bisect_right(self._starts, row) - 1

    def _between(self, start: int, stop: int) -> np.ndarray:
        if start == stop:
            return self.parts[0].array[:0]
        low, high = self._find_part(start), self._find_part(stop - 1)
        pieces = [
            self.parts[part].array[max(0, start - self._starts[part]) : stop - self._starts[part]]
            for part in range(low, high + 1)
        ]
        return pieces[0] if low == high else np.concatenate(pieces)
