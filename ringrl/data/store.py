"""The episode store: flat memory-mapped columns of steps, and metadata of each episode."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ringrl.data.columns import REMEDY, JoinedColumn, MappedColumn, make_read_error
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec, DataSpec

if TYPE_CHECKING:
    from gymnasium import Space

VERSION = 1
STEP_COLUMNS = ("observations", "actions", "rewards", "returns_to_go")
EPISODE_DTYPES = {
    "starts": np.dtype(np.int64),
    "lengths": np.dtype(np.int64),
    "returns": np.dtype(np.float64),
    "task_ids": np.dtype(np.int32),
    "policy_ids": np.dtype(np.int32),
    "terminated": np.dtype(bool),
}
EPISODE_COLUMNS = tuple(EPISODE_DTYPES)
Column = np.ndarray | JoinedColumn
RESIDENT_BYTES = 96 << 20  # limit for a reader of steps before it releases pages


def step_indices(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenated indices start, start + 1, ... start + length - 1 of each episode: (sum of lengths,) int64."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def step_columns(observation_size: int, action: ActionSpec) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Dtype and row shape of each step column."""
    discrete = action.kind is ActionKind.discrete
    number = np.dtype(np.float32)
    return {
        "observations": (number, (observation_size,)),
        "actions": (np.dtype(np.int32), ()) if discrete else (number, (action.size,)),
        "rewards": (number, ()),
        "returns_to_go": (number, ()),
    }


def sum_to_go(rewards: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The return-to-go at each step, accumulated from the episode's end in float64: (sum of lengths,)."""
    # All episodes of the same length at once: the same additions in the same order as one by one.
    if (lengths == lengths[0]).all():
        return np.cumsum(rewards.reshape(len(lengths), -1)[:, ::-1], axis=1, dtype=np.float64)[:, ::-1].reshape(-1)
    starts, sums = np.cumsum(lengths) - lengths, np.empty(len(rewards), np.float64)
    by_length = np.argsort(lengths, kind="stable")
    for same in np.split(by_length, np.flatnonzero(np.diff(lengths[by_length])) + 1):
        steps = starts[same][:, None] + np.arange(int(lengths[same[0]]))[::-1]
        sums[steps] = np.cumsum(rewards[steps], axis=1, dtype=np.float64)
    return sums


@dataclasses.dataclass(frozen=True, eq=False)
class EpisodeStore:
    """Episodes in flat columns of T steps, read through memory maps; a view keeps some of the E episodes.

    An episode of L steps has L observations: the one after its last action is not kept. `returns_to_go` is the sum of
    the episode's rewards from each step on. `starts` and `lengths` locate the episodes in the step columns.
    """

    path: Path  # its folder; of a joined store, the folders joined by " + "
    metadata: dict[str, Any]  # origin, environment, reference scores
    spec: DataSpec  # sizes, bounds of actions, and the longest episode
    fingerprint: str  # hash of the contents, and of the selected episodes of a view
    observations: Column  # (T, O) float32
    actions: Column  # (T, A) float32, or (T,) int32 when discrete
    rewards: Column  # (T,) float32
    returns_to_go: Column  # (T,) float32
    starts: np.ndarray  # (E,) int64
    lengths: np.ndarray  # (E,) int64
    returns: np.ndarray  # (E,) float64
    task_ids: np.ndarray  # (E,) int32
    policy_ids: np.ndarray  # (E,) int32: index into metadata["policies"]
    terminated: np.ndarray  # ended by the environment, not by a time limit
    columns: dict[str, MappedColumn] | dict[str, JoinedColumn] = dataclasses.field(repr=False)  # step columns by name
    folders: tuple[Path, ...] = ()  # one, or several when joined

    @classmethod
    def open(cls, path: str | Path) -> "EpisodeStore":
        """Open a store.

        Args:
            path: the store's folder.

        Returns:
            All of its episodes, read through memory maps.

        Raises:
            RingRLError: the store is missing, damaged, or of another version.
        """
        path = Path(path)
        metadata = read_metadata(path)
        spec, shapes = described_columns(path, metadata)
        columns = {name: MappedColumn(path / f"{name}.npy", *column) for name, column in shapes.items()}
        fingerprint = metadata["fingerprint"]
        arrays = {name: columns[name].array for name in STEP_COLUMNS}
        # Episode columns are small and used often: copied to memory.
        arrays |= {name: np.array(columns[name].array) for name in EPISODE_COLUMNS}
        _check_episodes(path, arrays)
        return cls(
            path=path,
            metadata=metadata,
            spec=spec,
            fingerprint=fingerprint,
            columns=columns,
            folders=(path,),
            **arrays,
        )

    @classmethod
    def from_episodes(
        cls,
        episodes: "Iterable[Mapping[str, Any] | Any]",
        *,
        action_space: "Space | None" = None,
        path: str | Path | None = None,
        overwrite: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> "EpisodeStore":
        """Create a store from episodes in memory, each checked as `EpisodeStoreWriter` does.

        An episode is a dictionary, or an object with attributes (others are ignored): `observations` (T, O) or (T + 1,
        O), `actions` (T, A) or (T,), `rewards` (T,) and, where there are any, `terminated` and `truncated` (one bool,
        or (T,) with the end last; Minari's `terminations` and `truncations` too), `task_id` (from 0; a chain never
        mixes tasks) and `policy` (the policy that acted).

        Args:
            episodes: the episodes, read once, one at a time.
            action_space: the environment's Box or Discrete space; by default vectors (T, A) bounded by the data.
            path: the folder of the store, which is then also a set for `ringrl train data=store data.name=PATH`. By
                default it is temporary, and removed when the store is no longer used.
            overwrite: replace an existing store at `path`.
            metadata: plain JSON about all episodes: `environment` (the gymnasium id for evaluations) and
                `environment_spec` (`env.spec.to_json()`, for its arguments, time limit and wrappers), `ref_min_score`
                and `ref_max_score` (returns that count as 0 and 100), `task_names` (a list).

        Returns:
            The store, on disk and read through memory maps.

        Raises:
            RingRLError: an episode has a wrong shape, a value that is not finite, or an action out of bounds (its
                number, field and step are named); there is no episode; `path` is taken or cannot be written.
        """
        from ringrl.data.episodes import store_episodes  # which imports this class

        return store_episodes(episodes, action_space=action_space, path=path, overwrite=overwrite, metadata=metadata)

    @property
    def num_episodes(self) -> int:
        """Number of episodes E."""
        return len(self.lengths)

    @property
    def num_steps(self) -> int:
        """Number of steps of the episodes in view."""
        return int(self.lengths.sum())

    @property
    def offsets(self) -> np.ndarray:
        """(E + 1,) int64: episode e is steps offsets[e]:offsets[e + 1].

        Raises ValueError for a view whose episodes are not contiguous: use `starts` and `lengths` instead.
        """
        offsets = np.append(self.starts, self.starts[-1] + self.lengths[-1])
        if np.any(offsets[:-1] + self.lengths != offsets[1:]):
            raise ValueError("this view's episodes are not contiguous: use starts and lengths")
        return offsets

    def select(self, episodes: np.ndarray) -> "EpisodeStore":
        """A view of some episodes.

        Args:
            episodes: their indices, in the order of the view, or a mask (E,).

        Returns:
            The view, with a fingerprint of its own.

        Raises:
            RingRLError: no episode is selected.
        """
        episodes = np.asarray(episodes)
        if episodes.dtype == bool:
            episodes = np.flatnonzero(episodes)
        if not len(episodes):
            raise RingRLError(f"{self.path}: no episode is selected, keep at least one.")
        chosen = {name: getattr(self, name)[episodes] for name in EPISODE_COLUMNS}
        content = hashlib.blake2b(chosen["starts"].tobytes() + self.fingerprint.encode(), digest_size=16)
        return dataclasses.replace(self, fingerprint=content.hexdigest(), **chosen)

    def keep_top(self, fraction: float) -> "EpisodeStore":
        """A view of the best episodes of each task by return: at least one, ties to the earlier.

        Args:
            fraction: fraction of the episodes to keep, in (0, 1].

        Returns:
            The view.

        Raises:
            RingRLError: the fraction is out of range.
        """
        if not 0.0 < fraction <= 1.0:
            raise RingRLError(f"top_fraction={fraction} is not in (0, 1]: 0.1 keeps the best tenth.")
        if fraction == 1.0:
            return self
        kept = []
        for task_id in np.unique(self.task_ids):
            episodes = np.flatnonzero(self.task_ids == task_id)
            best_first = episodes[np.argsort(-self.returns[episodes], kind="stable")]
            kept.append(best_first[: max(1, round(fraction * len(episodes)))])
        return self.select(np.sort(np.concatenate(kept)))

    def iterate_steps(self, chunk_steps: int = 1 << 16) -> Iterator[np.ndarray]:
        """Indices of the steps in view, whole episodes at a time, in chunks of about `chunk_steps`."""
        chunk = np.cumsum(self.lengths) // chunk_steps
        for part in np.split(np.arange(self.num_episodes), np.flatnonzero(np.diff(chunk)) + 1):
            yield step_indices(self.starts[part], self.lengths[part])

    def release(self) -> None:
        """Return the resident pages of the step columns to the system."""
        for name in STEP_COLUMNS:
            self.columns[name].release()

    @property
    def step_bytes(self) -> int:
        """Bytes of the step columns on disk."""
        return sum(self.columns[name].nbytes for name in STEP_COLUMNS)


def default_target_return(store: EpisodeStore) -> float:
    """The target return of a policy when none is given.

    Args:
        store: the data that the policy was trained on.

    Returns:
        The mean over tasks of the best return in the data, in the environment's units.
    """
    return float(np.mean([store.returns[store.task_ids == task_id].max() for task_id in np.unique(store.task_ids)]))


def spec_to_json(spec: DataSpec) -> dict[str, Any]:
    """The spec as plain numbers, strings and lists."""
    values = dataclasses.asdict(spec)
    values["action"] |= {"kind": spec.action.kind.value, "low": list(spec.action.low), "high": list(spec.action.high)}
    if not spec.action.start:  # omitted for compatibility: fingerprints are computed from this
        del values["action"]["start"]
    return values


def spec_from_json(values: dict[str, Any]) -> DataSpec:
    """The inverse of `spec_to_json`."""
    action = values["action"]
    low, high = tuple(action["low"]), tuple(action["high"])
    return DataSpec(
        observation_size=values["observation_size"],
        action=ActionSpec(ActionKind(action["kind"]), action["size"], low, high, action.get("start", 0)),
        max_episode_steps=values["max_episode_steps"],
    )


def described_columns(
    path: Path, metadata: dict[str, Any]
) -> tuple[DataSpec, dict[str, tuple[np.dtype, tuple[int, ...]]]]:
    """The description of the data in metadata.json, and the expected dtype and shape of each column's file.

    Raises `RingRLError` if a key is missing or the columns are not those of the store's version.
    """
    try:
        spec = spec_from_json(metadata["spec"])
        told = {name: metadata["columns"][name] for name in (*STEP_COLUMNS, *EPISODE_COLUMNS)}
        steps, episodes = (int(told[name]["shape"][0]) for name in ("rewards", "lengths"))
        rows = step_columns(spec.observation_size, spec.action)
        expected = {name: (dtype, (steps, *row)) for name, (dtype, row) in rows.items()}
        expected |= {name: (dtype, (episodes,)) for name, dtype in EPISODE_DTYPES.items()}
        for name, (dtype, shape) in expected.items():
            found = tuple(told[name]["shape"]), told[name]["dtype"]
            if found != (shape, dtype.str):
                raise TypeError(f"{name} of {found[0]} {found[1]}, where {shape} {dtype.str} is expected,")
        if not isinstance(metadata["fingerprint"], str) or not isinstance(metadata["policies"], list):
            raise TypeError("fingerprint or policies")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise RingRLError(f"{path / 'metadata.json'}: {error} is missing or wrong. {REMEDY}") from error
    return spec, expected


def content_fingerprint(digests: dict[str, str], spec: DataSpec, policies: list[str]) -> str:
    """The fingerprint of a store, from the digests of its columns by name."""
    content = hashlib.blake2b(digest_size=16)
    for name, digest in sorted(digests.items()):
        content.update(f"{name}:{digest};".encode())
    content.update(json.dumps([spec_to_json(spec), policies]).encode())
    return content.hexdigest()


def _check_episodes(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Raise `RingRLError` unless every episode lies within the step columns, so that no read is out of range."""
    starts, lengths, steps = arrays["starts"], arrays["lengths"], len(arrays["rewards"])
    wrong = (lengths < 1) | (starts < 0) | (starts > steps - lengths)
    if not len(lengths) or wrong.any():
        what = f"episode {int(np.argmax(wrong))} is not within its {steps} steps" if len(lengths) else "no episodes"
        raise RingRLError(f"{path / 'starts.npy'}: {what}. The store at {path} is damaged. {REMEDY}")


def read_metadata(path: Path) -> dict[str, Any]:
    """Read metadata.json of the store in folder `path`; raises `RingRLError` unless it is one of this version."""
    file = path / "metadata.json"
    if not path.is_dir():
        raise RingRLError(f"{path}: there is no such folder; give the folder of an EpisodeStore.")
    if not file.is_file():
        raise RingRLError(f"{path}: not an EpisodeStore, or half a one (no metadata.json); build it again.")
    try:
        metadata = json.loads(file.read_text())
    except OSError as error:
        raise make_read_error(file, error) from error
    except ValueError as error:
        raise RingRLError(f"{file}: not valid JSON ({error}). {REMEDY}") from error
    if not isinstance(metadata, dict) or metadata.get("format") != "ringrl.EpisodeStore":
        raise RingRLError(f"{file}: not an EpisodeStore; a Minari set is opened with data.source=minari.")
    if metadata.get("version") != VERSION:
        raise RingRLError(
            f"{file}: store version {metadata.get('version')}, this RingRL reads version {VERSION}. Use the RingRL "
            "that made it, or import the set again under another name."
        )
    return metadata
