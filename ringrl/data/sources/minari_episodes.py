"""Reading of single episodes from a Minari set's files, limited to what a store keeps.

Minari's own storage classes also decode every info, and open several objects for each: over ten times slower on sets of
short episodes, and in Minari 0.5.4 a ValueError for an arrow set whose infos have a scalar array. Sets of images are
still read by them.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces

from ringrl.data.sources.spaces import Contradiction

_COLUMNS = ("observations", "actions", "rewards", "terminations")
_TOLD = ("task_id", "policy")


class MinariEpisode(NamedTuple):
    """One episode of T steps as stored in its files."""

    observations: Any  # arrays (T, ...) or (T + 1, ...), nested as the observation space
    actions: np.ndarray  # (T, ...)
    rewards: np.ndarray  # (T,)
    terminated: bool
    told: dict[str, Any]  # task_id and policy, if the set has them: see `sources.labels`


class MinariFiles(Protocol):
    """An open set. `read` raises the errors of the underlying libraries, Contradiction and ValueError."""

    count: int  # number of episodes in the files

    def read(self, index: int) -> MinariEpisode:
        """Read the episode of that number."""
        ...


@contextlib.contextmanager
def open_minari_files(folder: Path, storage: Any) -> Iterator[MinariFiles]:
    """Open the episodes of a `minari.dataset.MinariStorage` in `folder`; raises as `MinariFiles.read` does."""
    if storage.FORMAT not in ("hdf5", "arrow", "parquet") or _has_images(storage):
        yield _MinariReader(storage)
    elif storage.FORMAT == "hdf5":
        import h5py

        with h5py.File(folder / "main_data.hdf5", "r") as file:
            yield _Hdf5(file, storage.observation_space)
    else:
        yield _Arrow(folder, storage)


class _Hdf5:
    def __init__(self, file: Any, observation_space: spaces.Space) -> None:
        import h5py

        self._h5 = h5py
        self._file, self._space = file, observation_space
        self.count = len(file)

    def read(self, index: int) -> MinariEpisode:
        """See `MinariFiles`."""
        # By identifiers, not by h5py's File and Group objects, whose creation takes several times as long.
        try:
            group = self._h5.h5g.open(self._file.id, f"episode_{index}".encode())
        except KeyError as error:
            raise Contradiction(f"there is no episode_{index}") from error
        told = {name: value for name in _TOLD if (value := self._told(group, name)) is not None}
        return MinariEpisode(
            self._nested(group, "observations", self._space),
            self._array(group, "actions"),
            self._array(group, "rewards").reshape(-1),
            bool(self._array(group, "terminations").reshape(-1)[-1:].any()),
            told,
        )

    def _nested(self, group: Any, path: str, space: spaces.Space) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: self._nested(group, f"{path}/{key}", part) for key, part in space.spaces.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(self._nested(group, f"{path}/_index_{i}", part) for i, part in enumerate(space.spaces))
        return self._array(group, path)

    def _array(self, group: Any, path: str) -> np.ndarray:
        try:
            dataset = self._h5.h5d.open(group, path.encode())
        except KeyError as error:
            raise Contradiction(f"there is no {path}") from error
        if dataset.dtype.kind not in "biuf":  # no strings or objects
            raise ValueError(f"{path} hold {dataset.dtype} values, not numbers")
        values = np.empty(dataset.shape, dataset.dtype)
        if values.size:
            dataset.read(self._h5.h5s.ALL, self._h5.h5s.ALL, values)
        return values

    def _told(self, group: Any, name: str) -> Any:
        for attribute in (name, f"options/{name}"):
            if self._h5.h5a.exists(group, attribute.encode()):
                return self._h5.Group(group).attrs[attribute]
        infos = self._h5.Group(group).get("infos") if "infos" in group else None
        values = infos.get(name) if isinstance(infos, self._h5.Group) else None
        if not isinstance(values, self._h5.Dataset) or not values.size:
            return None
        return values[()] if not values.shape else values[0]


class _Arrow:
    """Arrow or parquet: a folder for each episode, with its metadata.json beside the columns."""

    def __init__(self, folder: Path, storage: Any) -> None:
        self._folder, self._format = folder, storage.FORMAT
        self._spaces = {"observations": storage.observation_space, "actions": storage.action_space}
        self.count = sum(entry.name.isdigit() for entry in os.scandir(folder))

    def read(self, index: int) -> MinariEpisode:
        """See `MinariFiles`."""
        folder = self._folder / str(index)
        metadata = json.loads((folder / "metadata.json").read_bytes())
        table = self._table(folder)
        for name in _COLUMNS:
            if name not in table.column_names:
                raise Contradiction(f"there is no column {name!r}")
        columns = {name: _combine_chunks(table.column(name)) for name in _COLUMNS}
        # The last row, which has no action, is padded, unless there are as many observations as actions.
        steps = int(metadata.get("total_steps", table.num_rows - 1))
        if table.num_rows not in (steps, steps + 1):
            raise Contradiction(f"{table.num_rows} rows for {steps} steps")
        told = _read_labels(metadata)
        if "infos" in table.column_names:
            infos = table.column("infos")
            fields = {field.name for field in infos.type} if hasattr(infos.type, "fields") else set()
            for name in fields & (set(_TOLD) - set(told)):
                (first,) = _combine_chunks(infos).field(name)[:1].to_pylist() or (None,)
                if first is not None:
                    told[name] = first
        return MinariEpisode(
            _to_nested_arrays(columns["observations"], self._spaces["observations"], "observations"),
            _to_nested_arrays(columns["actions"][:steps], self._spaces["actions"], "actions"),
            _numbers(columns["rewards"][:steps], "rewards"),
            bool(_numbers(columns["terminations"][:steps], "terminations")[-1:].any()),
            told,
        )

    def _table(self, folder: Path) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        names = [name for name in os.listdir(folder) if name.endswith(f".{self._format}")]
        if not names:
            raise Contradiction(f"there is no {self._format} file")
        tables = []
        for name in sorted(names, key=lambda name: (len(name), name)):
            if self._format == "parquet":
                tables.append(parquet.ParquetFile(folder / name).read())
            else:
                tables.append(pa.ipc.open_file((folder / name).read_bytes()).read_all())
        return pa.concat_tables(tables)


class _MinariReader:
    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.count = storage.total_episodes

    def read(self, index: int) -> MinariEpisode:
        """See `MinariFiles`."""
        episode, metadata = next(iter(self._storage.get_episodes([index]))), self._storage.get_episode_metadata([index])
        infos = episode.get("infos") or {}
        told = {name: first for name in _TOLD if (first := _first_row(infos.get(name))) is not None}
        told |= _read_labels(next(iter(metadata)))
        return MinariEpisode(
            episode["observations"],
            np.asarray(episode["actions"]),
            np.asarray(episode["rewards"]).reshape(-1),
            bool(np.asarray(episode["terminations"]).reshape(-1)[-1:].any()),
            told,
        )


def _has_images(storage: Any) -> bool:
    from minari.dataset.minari_storage import is_image_space

    def inside(space: spaces.Space) -> bool:
        parts = space.spaces if isinstance(space, spaces.Dict | spaces.Tuple) else None
        if parts is None:
            return is_image_space(space)
        return any(inside(part) for part in (parts.values() if isinstance(parts, dict) else parts))

    return bool(storage.jpeg_encoding) and inside(storage.observation_space)


def _to_nested_arrays(column: Any, space: spaces.Space, name: str) -> Any:
    """Convert an arrow array to arrays nested like `space`."""
    if isinstance(space, spaces.Dict):
        return {
            key: _to_nested_arrays(_field(column, key, name), part, f"{name}/{key}")
            for key, part in space.spaces.items()
        }
    if isinstance(space, spaces.Tuple):
        parts = enumerate(space.spaces)
        return tuple(_to_nested_arrays(_field(column, str(i), name), part, f"{name}/{i}") for i, part in parts)
    if isinstance(space, spaces.Discrete):
        return _numbers(column, name)
    flat = _numbers(column.flatten() if hasattr(column, "flatten") and not column.null_count else column, name)
    shape = tuple(space.shape or ())
    if len(column) and flat.size == len(column) * int(np.prod(shape)):
        return flat.reshape(len(column), *shape)
    return flat.reshape(len(column), -1) if len(column) else flat.reshape(0, *shape)


def _field(column: Any, key: str, name: str) -> Any:
    try:
        return column.field(key)
    except (KeyError, AttributeError) as error:
        raise Contradiction(f"{name} have no part {key!r}") from error


def _numbers(array: Any, name: str) -> np.ndarray:
    if array.null_count:
        raise Contradiction(f"{name} have gaps")
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} hold {array.type} values, not numbers")
    return values


def _combine_chunks(column: Any) -> Any:
    """One array of a table's column, which may consist of several chunks."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _read_labels(metadata: dict[str, Any]) -> dict[str, Any]:
    options = metadata.get("options")
    places = (options if isinstance(options, dict) else {}, metadata)
    return {name: place[name] for place in places for name in _TOLD if place.get(name) is not None}


def _first_row(values: Any) -> Any:
    """The first of an info's per-step values; None if they are not per step."""
    return values[0] if isinstance(values, np.ndarray | list | tuple) and np.ndim(values) and len(values) else None
