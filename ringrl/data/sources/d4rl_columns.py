"""Checked access to the columns of a D4RL file: plain HDF5 data sets of numbers stored within the file itself."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from ringrl.data.sources.d4rl_tasks import D4RLTask
from ringrl.errors import RingRLError

GOAL = "infos/goal"
MARKS = ("terminals", "timeouts")
BLOCK_ROWS = 1 << 17  # read at a time, approximately
CACHE_BYTES = 64 << 20  # of uncompressed HDF5 chunks, per column
_REMEDY = "download or write the file again."


@dataclasses.dataclass(frozen=True)
class D4RLColumns:
    """An open file: data sets by name, each of `rows` rows; `timeouts` and the goals may be missing."""

    file: Path
    rows: int
    datasets: dict[str, h5py.Dataset]

    def has(self, name: str) -> bool:
        """Whether the file has this column."""
        return name in self.datasets

    def blocks(self) -> Iterator[tuple[int, int]]:
        """First and last + 1 row of each block to read: whole HDF5 chunks if these are not too long."""
        chunk = max((1, *(data.chunks[0] for data in self.datasets.values() if data.chunks)))
        block = BLOCK_ROWS if chunk > BLOCK_ROWS else BLOCK_ROWS // chunk * chunk
        for first in range(0, self.rows, block):
            yield first, min(first + block, self.rows)

    def read(self, name: str, first: int, last: int) -> np.ndarray:
        """Rows first:last of a column as float32."""
        data = self.datasets[name]
        values = np.empty((last - first, *data.shape[1:]), np.float32)
        with self.reading(name):
            data.read_direct(values, np.s_[first:last])
        return values.reshape(last - first) if name == "rewards" else values

    def read_marks(self, name: str, first: int, last: int) -> np.ndarray:
        """Rows first:last of an end marker as bool, False if the file has none; raises unless all values are 0 or 1."""
        if not self.has(name):
            return np.zeros(last - first, bool)
        with self.reading(name):
            values = self.datasets[name][first:last].reshape(last - first)
        marked = values.astype(bool)
        wrong = np.flatnonzero(values != marked)
        if len(wrong):
            row = first + int(wrong[0])
            raise RingRLError(f"{self.file}, {name}, row {row}: {values[wrong[0]]} is neither 0 nor 1; {_REMEDY}")
        return marked

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Context that raises any HDF5 error as one line."""
        try:
            yield
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(f"{error}".split())[:160]
            raise RingRLError(f"{self.file}, {name}: cannot be read ({reason}); {_REMEDY}") from error


@contextlib.contextmanager
def open_columns(file: Path, task: D4RLTask) -> Iterator[D4RLColumns]:
    """Open a D4RL file and check its columns against the task; raises `RingRLError` naming file and column."""
    if not file.exists():
        raise RingRLError(f"{file}: there is no such file; download it, or give the path of a D4RL .hdf5 file.")
    if not file.is_file():
        raise RingRLError(f"{file}: not a file; give the path of one D4RL .hdf5 file.")
    try:
        opened = h5py.File(file, "r", rdcc_nbytes=CACHE_BYTES, rdcc_nslots=10007)
    except PermissionError as error:
        raise RingRLError(f"{file}: may not be read; make it readable (chmod u+r).") from error
    except (OSError, RuntimeError) as error:
        reason = " ".join(f"{error}".split())[:160]
        raise RingRLError(f"{file}: not an HDF5 file, or cut short ({reason}); {_REMEDY}") from error
    with opened as root:
        datasets = {name: _column(root, file, name) for name in ("observations", "actions", "rewards", "terminals")}
        optional = {"timeouts", GOAL} if task.goal is not None else {"timeouts"}
        for name in sorted(optional):
            if _has(root, file, name):
                datasets[name] = _column(root, file, name)
        rows = datasets["rewards"].shape[0]
        if not rows:
            raise RingRLError(f"{file}, rewards: the column has no rows; {_REMEDY}")
        sizes = {"observations": task.observation_size, "actions": task.action_size, GOAL: 2}
        for name, data in datasets.items():
            _check_shape(file, task, name, data.shape, rows, sizes.get(name))
        yield D4RLColumns(file, rows, datasets)


def _has(root: h5py.File, file: Path, name: str) -> bool:
    """Whether the file has this column, without following links."""
    group: h5py.Group = root
    *parents, last = name.split("/")
    for parent in parents:
        if parent not in group or not isinstance(group.get(parent, getlink=True), h5py.HardLink):
            return False
        inner = group[parent]
        if not isinstance(inner, h5py.Group):  # kitchen's files have a column `infos`
            return False
        group = inner
    return group.get(last, getlink=True) is not None


def _column(root: h5py.File, file: Path, name: str) -> h5py.Dataset:
    if not _has(root, file, name):
        raise RingRLError(f"{file}: the column {name} is missing; {_REMEDY}")
    group, _, last = name.rpartition("/")
    holder = root[group] if group else root
    assert isinstance(holder, h5py.Group)
    if not isinstance(holder.get(last, getlink=True), h5py.HardLink):
        raise RingRLError(f"{file}, {name}: a link, which is not followed; store the column in the file itself.")
    try:
        data = holder[last]
    except (OSError, RuntimeError, KeyError) as error:
        raise RingRLError(f"{file}, {name}: cannot be opened; {_REMEDY}") from error
    if not isinstance(data, h5py.Dataset):
        raise RingRLError(f"{file}, {name}: a group where a column of numbers is expected; {_REMEDY}")
    if data.is_virtual or data.external:
        raise RingRLError(f"{file}, {name}: its numbers are in other files, which are not read; copy them into one.")
    if data.dtype.kind not in "fiub" or data.dtype.subdtype is not None:
        raise RingRLError(f"{file}, {name}: holds {data.dtype} where numbers are expected; {_REMEDY}")
    return data


def _check_shape(file: Path, task: D4RLTask, name: str, shape: tuple[int, ...], rows: int, size: int | None) -> None:
    """Raise unless a column has one row per step, and as many numbers per row as the task's."""
    if size is not None and (len(shape) != 2 or shape[1] != size):
        raise RingRLError(
            f"{file}, {name}: shape {shape}, but {task.name} has {size} numbers a row; is it the right task?"
        )
    if size is None and shape[1:] not in ((), (1,)):
        raise RingRLError(f"{file}, {name}: shape {shape}, expected one number a row; {_REMEDY}")
    if shape[0] != rows:
        raise RingRLError(f"{file}, {name}: {shape[0]} rows, but rewards has {rows}; {_REMEDY}")
