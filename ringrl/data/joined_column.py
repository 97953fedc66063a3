"""Columns of several stores, read as one array."""

import bisect
from typing import Any

import numpy as np

from ringrl.data.columns import MappedColumn


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
