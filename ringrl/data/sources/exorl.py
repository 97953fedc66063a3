"""Import of an ExoRL folder: `*_<index>_<length>.npz`, read in that order, relabeled for a task if requested.

A file of T steps has T + 1 rows, and action[t] led to observation[t]: the first row of action, reward and discount is a
dummy. Format: Yarats et al. 2022, arXiv 2201.13425 (https://github.com/denisyarats/exorl).
"""

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ringrl.data.sources.exorl_rewards import RewardCache
from ringrl.data.sources.npz import read_npz
from ringrl.data.sources.ordered_map import ordered_map
from ringrl.data.store import EpisodeStore
from ringrl.data.store_writer import EpisodeStoreWriter
from ringrl.errors import RingRLError
from ringrl.types import ActionSpec

Progress = Callable[[int, int], None]  # (done, total)
Relabel = Callable[[np.ndarray, np.ndarray], np.ndarray]  # physics (T + 1, D), actions (T + 1, A) -> rewards (T + 1,)

FILE_NAME = re.compile(r".*_([0-9]+)_([0-9]+)\.npz")
_BATCH = 8  # files per task of a worker
_BATCHES_READ_WHILE_ONE_STARTS = 64  # without relabeling, the minimum that justifies starting a worker
_ROW_BYTES = 1 << 16  # more than any row of state, action or physics needs
_LARGEST_BYTES = 1 << 30  # of an array, whatever length its file's name gives
_DIMENSIONS = {"observation": 2, "action": 2, "reward": 1, "discount": 1, "physics": 2}


@dataclasses.dataclass(frozen=True)
class EpisodeFile:
    """One episode's file, and the index and length in its name."""

    path: Path
    index: int
    length: int  # T


@dataclasses.dataclass(frozen=True, eq=False)
class _Batch:
    """Concatenated episodes of a few files."""

    files: Sequence[EpisodeFile]
    observations: np.ndarray  # (S, O) float32
    actions: np.ndarray  # (S, A) float32
    rewards: np.ndarray  # (S,) float32
    terminated: list[bool]


def build_from_exorl(
    folder: Path,
    store_path: Path,
    *,
    task: str,
    action: ActionSpec,
    environment: str,
    max_episode_steps: int = 0,
    observation_size: int | None = None,
    relabel: Relabel | None = None,
    workers: int = 1,
    limit: int | None = None,
    policy: str = "",
    overwrite: bool = False,
    metadata: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> EpisodeStore:
    """Read the folder's episodes (the first `limit`) in order of index, and write them as a store in `store_path`.

    Rewards are those recorded, or `relabel(physics, actions)`, whose first row is not used; `relabel` must be picklable
    if `workers` > 1, and may have attributes `observation_size` and `physics_size`, which are checked. The
    environment's `observation_size` may also be given; `max_episode_steps` 0 is no limit.

    A few batches of episodes are in memory at a time, and the result does not depend on `workers`. A killed import
    leaves the rewards it had computed in a hidden folder beside the store; repeating the import uses and removes it.
    Raises `RingRLError`, naming file, key and step, for invalid input, and leaves nothing.
    """
    files = list_episodes(folder, limit)
    cache = RewardCache.beside(store_path, f"{environment} {task}")
    told = {"action": action.size}
    told |= {key: getattr(relabel, f"{key}_size", None) for key in ("observation", "physics")}
    told |= {"observation": observation_size} if observation_size is not None else {}
    sizes = {key: (int(size), f"{environment}'s") for key, size in told.items() if size is not None}
    reader = _Reader(sizes, task, max_episode_steps, relabel, cache if relabel is not None else None)
    for key, values in reader.arrays(files[0]).items():  # all files must have the arrays of the first one
        if values.ndim == 2:
            sizes.setdefault(key, (values.shape[1], f"{files[0].path.name}'s"))
    kept = {
        "environment": environment,
        "environment_spec": {"kwargs": {}, "max_episode_steps": max_episode_steps or None},
        "task": task,
        "rewards": "as recorded" if relabel is None else "relabelled",
        **(metadata or {}),
    }
    batches = [files[first : first + _BATCH] for first in range(0, len(files), _BATCH)]
    worthwhile = len(batches) if relabel is not None else len(batches) // _BATCHES_READ_WHILE_ONE_STARTS
    source = f"ExoRL folder {folder}"
    with (
        _removed_at_the_end(cache),
        EpisodeStoreWriter(
            store_path, sizes["observation"][0], action, source=source, metadata=kept, overwrite=overwrite
        ) as writer,
        contextlib.closing(ordered_map(reader, batches, min(workers, worthwhile))) as results,
    ):
        done = 0
        for batch in results:
            writer.append_many(
                batch.observations,
                batch.actions,
                batch.rewards,
                np.array([file.length for file in batch.files]),
                terminated=np.array(batch.terminated),
                policies=policy,
                episode_names=[file.path.name for file in batch.files],
            )
            done += len(batch.files)
            if progress is not None:
                progress(done, len(files))
        return writer.finish()


def list_episodes(folder: Path, limit: int | None = None) -> list[EpisodeFile]:
    """List the first `limit` episode files of a folder by index.

    Hidden files, and those that are not npz, are ignored. Raises `RingRLError` for a missing folder, no such files, a
    name that does not end in _<index>_<length>.npz, and a duplicate index.
    """
    if limit is not None and limit < 1:
        raise RingRLError(f"limit={limit}: read at least one episode, or leave limit out to read all.")
    try:
        names = [name for name in os.listdir(folder) if name.endswith(".npz") and not name.startswith(".")]
    except FileNotFoundError:
        raise RingRLError(f"{folder}: there is no such folder; give the folder of an ExoRL set's npz files.") from None
    except NotADirectoryError:
        raise RingRLError(f"{folder}: is a file; give the folder that holds an ExoRL set's npz files.") from None
    except OSError as error:
        raise RingRLError(f"{folder}: cannot be read ({error.strerror}); make it readable.") from error
    if not names:
        inside = f"; did you mean {folder / 'buffer'}?" if (folder / "buffer").is_dir() else ": give another folder."
        raise RingRLError(f"{folder}: holds no episode, which would be a file *_<index>_<length>.npz{inside}")
    files: dict[int, EpisodeFile] = {}
    for name in sorted(names):
        match = FILE_NAME.fullmatch(name)
        if match is None or not int(match[2]):
            wrong = "says that it has no steps" if match else "does not end in _<index>_<length>.npz"
            raise RingRLError(f"{folder}: the name {name!r} {wrong}; rename that file, or move it away.")
        file = EpisodeFile(folder / name, int(match[1]), int(match[2]))
        other = files.setdefault(file.index, file)
        if other is not file:
            raise RingRLError(
                f"{file.path}: has the index of {other.path.name}; a folder holds one set: move one of the two away."
            )
    return [files[index] for index in sorted(files)[:limit]]


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads files into episodes, in this process or a worker (picklable)."""

    sizes: dict[str, tuple[int, str]]  # key -> required number of columns, and what requires it
    task: str
    max_episode_steps: int
    relabel: Relabel | None
    cache: RewardCache | None

    def __call__(self, files: Sequence[EpisodeFile]) -> _Batch:
        key, kept = "", None
        if self.cache is not None:
            key = self.cache.key([file.path for file in files])
            kept = self.cache.load(key, sum(file.length for file in files))
        episodes = [self.arrays(file, physics=kept is None) for file in files]
        if kept is not None:
            rewards = kept
        elif self.relabel is None:
            rewards = _joined([arrays["reward"][1:] for arrays in episodes])
        else:
            rewards = _joined([self._relabel_rewards(*pair) for pair in zip(files, episodes, strict=True)])
        if self.cache is not None and kept is None:
            self.cache.save(key, rewards)
        return _Batch(
            files,
            _joined([arrays["observation"][:-1] for arrays in episodes]),
            _joined([arrays["action"][1:] for arrays in episodes]),
            rewards,
            [bool(arrays["discount"][-1] == 0) for arrays in episodes],
        )

    def arrays(self, file: EpisodeFile, physics: bool = True) -> dict[str, np.ndarray]:
        """The file's arrays by key, of the required shapes: (T + 1, columns) or (T + 1,)."""
        if 0 < self.max_episode_steps < file.length:
            raise RingRLError(
                f"{file.path}: the name says {file.length} steps, the environment's episodes have "
                f"{self.max_episode_steps} at most; is task={self.task} of this set's domain?"
            )
        rows = file.length + 1
        keys = ["observation", "action", "discount"]
        if self.relabel is None:
            keys.append("reward")
        elif physics:
            keys.append("physics")
        arrays = read_npz(file.path, keys, min(rows * _ROW_BYTES, _LARGEST_BYTES))
        for key, values in arrays.items():
            if _DIMENSIONS[key] == 1 and values.shape == (rows, 1):
                arrays[key] = values = values[:, 0]
            self._check(file, key, values)
        return arrays

    def _check(self, file: EpisodeFile, key: str, values: np.ndarray) -> None:
        if values.ndim != _DIMENSIONS[key] or len(values) != file.length + 1:
            expected = f"({file.length + 1}, columns)" if _DIMENSIONS[key] == 2 else f"({file.length + 1},)"
            raise RingRLError(
                f"{file.path}: {key!r} has shape {values.shape}, expected {expected}: a row a step, and one "
                "before them; record it anew, or move that file away."
            )
        size, whose = self.sizes.get(key, (None, ""))
        if size is not None and values.shape[1] != size:
            raise RingRLError(
                f"{file.path}: {key!r} has {values.shape[1]} columns, {whose} has {size}; a folder holds the episodes "
                f"of one domain, and task={self.task} must be of that domain."
            )
        if key in ("discount", "physics"):  # the store checks the others
            finite = np.isfinite(values)
            if not finite.all():
                where = tuple(np.argwhere(~finite)[0])
                raise RingRLError(
                    f"{file.path}, step {max(0, where[0] - 1)}: {key!r} holds {values[where]} in row {where[0]}; "
                    "record it anew, or move that file away."
                )

    def _relabel_rewards(self, file: EpisodeFile, arrays: dict[str, np.ndarray]) -> np.ndarray:
        assert self.relabel is not None
        try:
            rewards = np.asarray(self.relabel(arrays["physics"], arrays["action"]))
        except Exception as error:  # whatever a simulator raises
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise RingRLError(
                f"{file.path}: the rewards of task={self.task} cannot be computed ({said}); "
                "is that task of this set's domain?"
            ) from error
        if rewards.shape != arrays["discount"].shape:
            raise RingRLError(
                f"{file.path}: the rewards of task={self.task} have shape {rewards.shape}, expected a number a row, "
                f"{arrays['discount'].shape}."
            )
        return rewards[1:]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which the store rejects
        return np.concatenate(parts).astype(np.float32, copy=False)


@contextlib.contextmanager
def _removed_at_the_end(cache: RewardCache) -> Iterator[None]:
    """Remove the cache on completion and on an error; an interruption keeps it for the next import."""
    try:
        yield
    except Exception:
        cache.remove()
        raise
    cache.remove()
