"""Writing of an episode store in one pass, in bounded memory and atomically."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ringrl.data.building import LOCK_FILE, BuildFolder, remove_leftovers
from ringrl.data.column_writer import ColumnWriter, make_write_error
from ringrl.data.rules import EpisodeRules, column_range
from ringrl.data.store import EpisodeStore
from ringrl.data.store_format import (
    EPISODE_DTYPES,
    STEP_COLUMNS,
    VERSION,
    content_fingerprint,
    read_metadata,
    spec_to_json,
    step_columns,
    sum_to_go,
)
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec, DataSpec

PIECE_BYTES = 4 << 20  # of columns, checked, hashed and written at a time: they stay in a core's cache
THREAD_BYTES = 1 << 18  # from which hashing and writing use threads


class EpisodeStoreWriter:
    """Appends episodes to a new store in folder `path`, which is created atomically by `finish`.

    Use it as a context manager: leaving it without `finish` removes the written files, and leftovers of a killed writer
    of the same `path` are removed by the next one. `source` names the data in error messages. With `overwrite` the new
    store replaces an old one when it is finished; without, a folder that was created in the meantime (another process
    built the same store) is kept and used. Raises `RingRLError` if `path` exists or cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        observation_size: int,
        action: ActionSpec,
        *,
        source: str = "",
        metadata: dict[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path, self.source, self.metadata = Path(path), source or str(path), dict(metadata or {})
        self.observation_size, self.action, self._overwrite = observation_size, action, overwrite
        self._rules = EpisodeRules(observation_size, action)
        shape = np.shape(action.low)
        self._seen_low, self._seen_high = np.full(shape, np.inf), np.full(shape, -np.inf)
        self._episodes: dict[str, list[Any]] = {name: [] for name in EPISODE_DTYPES if name != "starts"}
        self._policies: dict[str, int] = {}
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="store-writer")
        self._pending: list[Future[None]] = []  # columns being hashed and written by threads
        self._columns: dict[str, ColumnWriter] = {}
        with _disk_errors(self.path):
            remove_leftovers(self.path)
        self._check_place()
        with _disk_errors(self.path):
            self._build = BuildFolder(self.path)
            try:
                for name, (dtype, row) in step_columns(observation_size, action).items():
                    self._columns[name] = ColumnWriter(self._build.folder / f"{name}.npy", dtype, row)
            except BaseException:
                self.abort()
                raise

    def append(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        *,
        terminated: bool = False,
        task_id: int = 0,
        policy: str = "",
        name: str = "",
    ) -> None:
        """Append one episode of L steps: observations (L, O) or (L + 1, O), actions (L, A) or (L,), rewards (L,).

        Raises `RingRLError`, naming the episode and its origin `name`, for a wrong shape, a value that is not finite
        (with field and step), or an action out of bounds.
        """
        named = self._name(0, [name])
        observations, actions, rewards = self._rules.numbers(named, observations, actions, rewards)
        steps = len(rewards)
        kept = observations[:steps]
        if len(observations) > steps + 1 or not self._rules.hold(kept, actions, rewards):
            self._rules.check(named, observations, actions, rewards)
        self._store(kept, actions, rewards, np.array([steps]), [terminated], [task_id], [policy], [name])
        self._wait()

    def append_many(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        lengths: np.ndarray,
        *,
        terminated: np.ndarray,
        task_ids: np.ndarray | int = 0,
        policies: Sequence[str] | str = "",
        episode_names: Sequence[str] | None = None,
    ) -> None:
        """Append E concatenated episodes: observations (S, O), actions (S, A) or (S,), rewards (S,), lengths (E,).

        `terminated` is (E,), `task_ids` and `policies` are one for all or one each. The result and the errors are the
        same as with `append` for each episode; episodes before an invalid one may have been added.
        """
        lengths = np.asarray(lengths, np.int64)
        episodes = len(lengths)
        ended = np.broadcast_to(np.asarray(terminated, bool), episodes).tolist()
        tasks = np.broadcast_to(task_ids, episodes).tolist()
        policies = [policies] * episodes if isinstance(policies, str) else policies
        names = [""] * episodes if episode_names is None else episode_names
        if not len(policies) == len(names) == episodes:
            raise ValueError(f"{episodes} lengths, {len(policies)} policies and {len(names)} episode names")
        if not episodes:
            return
        observations, actions, rewards = self._rules.numbers(self._name(0, names), observations, actions, rewards)
        try:
            for part, steps in self._pieces(lengths):
                piece = observations[steps], actions[steps], rewards[steps], lengths[part]
                if (
                    (lengths[part] < 1).any()
                    or lengths[part].sum() != len(piece[2])
                    or not self._rules.hold(*piece[:3])
                ):
                    self._check_each(*piece, names[part])
                self._store(*piece, ended[part], tasks[part], policies[part], names[part])
            if len(rewards) > lengths.sum():
                raise RingRLError(
                    f"{self._name(-1, names)}: the episodes up to this one have {lengths.sum()} of the {len(rewards)} "
                    "steps given."
                )
        finally:
            self._wait()

    def set_tasks(self, task_ids: Sequence[int], names: Sequence[str] | None = None) -> None:
        """Replace the tasks of all appended episodes, one each; with `names`, tasks are indices into these."""
        if len(task_ids) != len(self._episodes["task_ids"]):
            raise ValueError(f"{len(task_ids)} tasks for {len(self._episodes['task_ids'])} episodes")
        self._check_tasks(task_ids, [""] * len(task_ids), len(self._episodes["lengths"]))
        self._episodes["task_ids"] = list(task_ids)
        if names is not None:
            self.metadata["task_names"] = list(names)

    def finish(self) -> EpisodeStore:
        """Move the store into place and open it; raises `RingRLError` if no episode was appended."""
        if not self._episodes["lengths"]:
            raise RingRLError(f"{self.source}: the set has no episodes, so there is nothing to learn from.")
        self._check_place(finished=True)
        with _disk_errors(self.path):
            self._write_episode_columns()
            for column in self._columns.values():
                column.close()
            fingerprint = self._write_metadata()
            try:
                self._build.place(replace=self._overwrite)
            except OSError as error:
                if self._overwrite or not (self.path / "metadata.json").is_file():
                    raise
                self._build.remove()
                if read_metadata(self.path).get("fingerprint") != fingerprint:
                    raise RingRLError(
                        f"{self.path}: another store appeared meanwhile. Give another name, or overwrite=true."
                    ) from error
        return EpisodeStore.open(self.path)

    def abort(self) -> None:
        """Remove the written files; no effect after `finish`."""
        self._pool.shutdown()
        for column in self._columns.values():
            with contextlib.suppress(OSError):
                column.close()
        self._build.remove()

    def __enter__(self) -> "EpisodeStoreWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.abort()

    def _check_place(self, finished: bool = False) -> None:
        """Raise `RingRLError` if the store may not be created at `path`."""
        if not self.path.exists():
            return
        if not self._overwrite:
            if finished:
                return
            raise RingRLError(
                f"{self.path}: already exists. Give another name, or replace that store by overwrite=true."
            )
        known = {"metadata.json", LOCK_FILE, *(f"{name}.npy" for name in (*STEP_COLUMNS, *EPISODE_DTYPES))}
        found = sorted({entry.name for entry in self.path.iterdir()} - known) if self.path.is_dir() else [""]
        if found or self.path.is_symlink():
            raise RingRLError(
                f"{self.path}: not a store alone ({found[0] or 'no folder'} is there), so it is not overwritten. "
                "Give another name, or move that folder away."
            )

    def _name(self, index: int, names: Sequence[str]) -> str:
        """The name, in errors, of the episode at `index` after those appended."""
        number = len(self._episodes["lengths"]) + index
        return f"{self.source}, episode {number}" + (f" ({names[index]})" if names[index] else "")

    def _pieces(self, lengths: np.ndarray) -> Iterator[tuple[slice, slice]]:
        """Chunks of whole episodes of about `PIECE_BYTES`, with their steps."""
        row_bytes = sum(column.row_bytes for column in self._columns.values())
        ends = np.cumsum(np.maximum(lengths, 0))
        piece = ends // max(1, PIECE_BYTES // row_bytes)
        cuts = [0, *(np.flatnonzero(np.diff(piece)) + 1).tolist(), len(lengths)]
        steps = [0, *ends.tolist()]
        for first, last in itertools.pairwise(cuts):
            yield slice(first, last), slice(steps[first], steps[last])

    def _check_each(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        lengths: np.ndarray,
        names: Sequence[str],
    ) -> None:
        """Raise `RingRLError` for the first invalid episode."""
        begin = 0
        for index, length in enumerate(lengths.tolist()):
            steps = slice(begin, begin + max(0, length))
            name, begin = self._name(index, names), steps.stop
            self._rules.check(name, observations[steps], actions[steps], rewards[steps])
            if len(rewards[steps]) != length:
                raise RingRLError(f"{name}: {len(rewards[steps])} of its {length} steps are there.")

    def _store(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        lengths: np.ndarray,
        terminated: Sequence[bool],
        task_ids: Sequence[int],
        policies: Sequence[str],
        names: Sequence[str],
    ) -> None:
        """Write checked episodes; threads may still be running afterwards, until `_wait`."""
        starts, to_go = np.cumsum(lengths) - lengths, sum_to_go(rewards, lengths)
        with np.errstate(over="ignore"):
            column = to_go.astype(np.float32)
        if not np.isfinite(column).all():
            index = int(np.searchsorted(starts, np.argmin(np.isfinite(column)), side="right")) - 1
            raise RingRLError(f"{self._name(index, names)}: rewards add up beyond the range of float32; scale them.")
        self._check_tasks(task_ids, names)
        actions = self._rules.stored(actions)
        if not self._rules.bounded:
            low, high = column_range(actions)
            self._seen_low, self._seen_high = np.minimum(self._seen_low, low), np.maximum(self._seen_high, high)
        values = dict(zip(STEP_COLUMNS, (observations, actions, rewards, column), strict=True))
        self._wait()
        with _disk_errors(self.path):
            for name, rows in values.items():
                if observations.nbytes < THREAD_BYTES:
                    self._columns[name].append(rows)
                else:
                    self._pending.append(self._pool.submit(self._columns[name].append, rows))
        told = self._episodes
        told["lengths"] += lengths.tolist()
        told["returns"] += to_go[starts].tolist()
        told["task_ids"] += task_ids
        told["policy_ids"] += [self._policies.setdefault(policy, len(self._policies)) for policy in policies]
        told["terminated"] += terminated

    def _check_tasks(self, task_ids: Sequence[int], names: Sequence[str], before: int = 0) -> None:
        """Raise RingRLError for a task that does not fit its column; the first is `before` episodes back."""
        for index, task_id in enumerate(task_ids):
            if not 0 <= task_id < 1 << 31:
                raise RingRLError(f"{self._name(index - before, names)}: task_id={task_id} is not in 0..2147483647.")

    def _wait(self) -> None:
        """Wait until the threads have hashed and written their columns; their error is raised as the disk's."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        with _disk_errors(self.path):
            for future in wait(pending).done:
                future.result()

    def _write_episode_columns(self) -> None:
        lengths = np.asarray(self._episodes["lengths"], np.int64)
        for name, dtype in EPISODE_DTYPES.items():
            values = np.cumsum(lengths) - lengths if name == "starts" else np.asarray(self._episodes[name], dtype)
            self._columns[name] = ColumnWriter(self._build.folder / f"{name}.npy", dtype, ())
            self._columns[name].append(values)

    def _write_metadata(self) -> str:
        """Write metadata.json and return the fingerprint."""
        action = self.action
        if action.kind is ActionKind.continuous:
            # An unbounded dimension gets the bounds of the data, which heads with a finite range need.
            low = np.where(np.isfinite(self._rules.low), self._rules.low, self._seen_low)
            high = np.where(np.isfinite(self._rules.high), self._rules.high, self._seen_high)
            action = ActionSpec(action.kind, action.size, tuple(map(float, low)), tuple(map(float, high)))
        spec = DataSpec(self.observation_size, action, int(max(self._episodes["lengths"])))
        policies = list(self._policies)
        digests = {name: column.digest() for name, column in self._columns.items()}
        metadata = {
            **self.metadata,
            "format": "ringrl.EpisodeStore",
            "version": VERSION,
            "source": self.source,
            "episodes": len(self._episodes["lengths"]),
            "steps": self._columns["rewards"].rows,
            "spec": spec_to_json(spec),
            "policies": policies,
            "columns": {
                name: {"dtype": column.dtype.str, "shape": [column.rows, *column.row_shape]}
                for name, column in self._columns.items()
            },
            "fingerprint": content_fingerprint(digests, spec, policies),
        }
        (self._build.folder / "metadata.json").write_text(json.dumps(metadata, indent=1))
        return metadata["fingerprint"]


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise make_write_error(path, error) from error
