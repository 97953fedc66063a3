"""The episode store: flat memory-mapped columns of steps, and metadata of each episode."""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ringrl.data.columns import MappedColumn
from ringrl.data.joined_column import JoinedColumn
from ringrl.data.store_format import EPISODE_COLUMNS, STEP_COLUMNS, check_episodes, described_columns, read_metadata
from ringrl.errors import RingRLError
from ringrl.types import DataSpec

if TYPE_CHECKING:
    from gymnasium import Space

RESIDENT_BYTES = 96 << 20  # limit for a reader of steps before it releases pages


def step_indices(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenated indices start, start + 1, ... start + length - 1 of each episode: (sum of lengths,) int64."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


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
    observations: np.ndarray | JoinedColumn  # (T, O) float32
    actions: np.ndarray | JoinedColumn  # (T, A) float32, or (T,) int32 when discrete
    rewards: np.ndarray | JoinedColumn  # (T,) float32
    returns_to_go: np.ndarray | JoinedColumn  # (T,) float32
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
        check_episodes(path, arrays)
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
