"""D4RL's HDF5 files, read in blocks into an episode store; `d4rl` itself is not needed.

An episode ends where `terminals` or `timeouts` is set. Special cases:

- No `timeouts` (old locomotion files), or neither marker set anywhere: an episode ends at the task's time limit.
- The last rows without an end are a truncated episode. Every row has its observation; the final one is not stored.
- antmaze: rewards and `terminals` refer to the task's goal, while the ant walked on to other goals (`infos/goal`) until
  it was reset. An episode here begins at a reset or a new goal and ends at the first arrival, as D4RL's environment
  does, so that its return is 1 if it arrived and else 0; the rows between arrival and reset are left out (metadata:
  `rows_left_out`). D4RL took a row's reward from the row after it, which for the last row before a reset is the next
  episode's start: an arrival there counts only where the ant is near the goal.
- maze2d: an episode is the path to one goal; there is no reset between them and the environment never terminates.
- antmaze and maze2d: the goal is appended to D4RL's observation: `infos/goal`, else the task's own.
- kitchen: no `timeouts`, `terminals` ends demonstrations (any length). See `kitchen_rewards` for the rewards; an
  episode terminated if all its tasks are done.
- adroit: demonstrations are longer than the environment's time limit; they are not truncated.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, overload

import numpy as np

from ringrl.data.reference_scores import reference_of_task
from ringrl.data.sources.d4rl_columns import GOAL, MARKS, D4RLColumns, open_columns
from ringrl.data.sources.d4rl_episodes import EpisodeRows, find_episodes, find_goal_changes, kitchen_rewards
from ringrl.data.sources.d4rl_tasks import D4RLTask, Family, find_task, task_of_file
from ringrl.data.store import EpisodeStore, step_indices
from ringrl.data.store_writer import EpisodeStoreWriter
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec

__all__ = ["build_from_d4rl", "task_of_file"]

Block = dict[str, np.ndarray]  # columns by name
Progress = Callable[[int, int], None]  # (done, total) rows
ARRIVED_WITHIN = 3.0  # meters from the goal's center, around which D4RL samples it
LONGEST = 200_000  # rows without an end, beyond which the markers must be wrong
_KITCHEN_ASKED = 4


def build_from_d4rl(
    file: Path, task: str, store_path: Path, progress: Progress | None = None, *, overwrite: bool = False
) -> EpisodeStore:
    """Read a D4RL file once, in bounded memory, and write it as a store in `store_path`.

    `task` is D4RL's name, such as hopper-medium-v2 (`task_of_file` knows D4RL's file names). The store's metadata names
    the environment whose observations are the stored ones, and D4RL's reference scores. Raises `RingRLError` in one
    line naming file and column or rows; then `store_path` is unchanged.
    """
    described = find_task(task)
    file = Path(file)
    with open_columns(file, described) as columns:
        size = described.observation_size + (0 if described.goal is None else len(described.goal))
        bound = (1.0,) * described.action_size
        action = ActionSpec(ActionKind.continuous, described.action_size, tuple(-b for b in bound), bound)
        metadata = _metadata(described)
        with EpisodeStoreWriter(
            store_path, size, action, source=str(file), metadata=metadata, overwrite=overwrite
        ) as writer:
            left_out = _copy(columns, described, writer, progress)
            if left_out:
                writer.metadata["rows_left_out"] = left_out
            return writer.finish()


def _metadata(task: D4RLTask) -> dict[str, Any]:
    scores = reference_of_task(task.name)
    assert scores is not None
    return {
        "dataset_id": task.name,
        "environment": task.environment,
        "environment_spec": {"kwargs": dict(task.kwargs), "max_episode_steps": task.max_episode_steps},
        "ref_min_score": scores[0],
        "ref_max_score": scores[1],
    }


def _copy(columns: D4RLColumns, task: D4RLTask, writer: EpisodeStoreWriter, progress: Progress | None) -> int:
    """Append all episodes, and return the number of rows left out."""
    limit = _time_limit(columns, task)
    waiting: Block = {}  # rows after the last end found
    row, left_out = 0, 0  # row: index in the file at which `waiting` begins
    for last, block in _blocks(columns):
        rows = {name: np.concatenate([waiting[name], part]) for name, part in block.items()} if waiting else block
        found = _find(task, rows, limit, final=last == columns.rows)
        if last - row - found.used > LONGEST:
            raise RingRLError(
                f"{columns.file}, rows {row + found.used} to {last - 1}: no end of an episode in {LONGEST} rows; "
                "set terminals and timeouts where episodes end."
            )
        if len(found.starts):
            _append(task, writer, rows, found, row)
        left_out += found.used - int(found.lengths.sum())
        waiting = {name: part[found.used :].copy() for name, part in rows.items()}
        row += found.used
        if progress is not None:
            progress(last, columns.rows)
    return left_out


def _blocks(columns: D4RLColumns) -> Iterator[tuple[int, Block]]:
    """The file's blocks as (last row + 1, columns); the next one is read while the current one is written."""
    numbers = ("observations", "actions", "rewards", *([GOAL] if columns.has(GOAL) else []))

    def read(first: int, last: int) -> Block:
        block = {name: columns.read(name, first, last) for name in numbers}
        return block | {name: columns.read_marks(name, first, last) for name in MARKS}

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="d4rl-reader") as reader:
        ahead: tuple[int, Future[Block]] | None = None
        for first, last in columns.blocks():
            following = last, reader.submit(read, first, last)
            if ahead is not None:
                yield ahead[0], ahead[1].result()
            ahead = following
        if ahead is not None:
            yield ahead[0], ahead[1].result()


def _time_limit(columns: D4RLColumns, task: D4RLTask) -> int | None:
    """The number of rows after which an episode without a marker ends; None if markers suffice."""
    told_by_terminals = task.family in (Family.kitchen, Family.maze2d)
    if not columns.has("timeouts") and not told_by_terminals:
        return task.max_episode_steps
    for first, last in columns.blocks():
        if any(columns.read_marks(name, first, last).any() for name in MARKS):
            return None
    return task.max_episode_steps


def _find(task: D4RLTask, rows: Block, limit: int | None, final: bool) -> EpisodeRows:
    ends, arrivals = rows["timeouts"], None
    if task.family is Family.antmaze:
        assert task.goal is not None
        far = np.linalg.norm(rows["observations"][:, :2] - np.asarray(task.goal, np.float32), axis=1) > ARRIVED_WITHIN
        arrivals = rows["terminals"] & ~(ends & far)
    else:
        ends = ends | rows["terminals"]
    if GOAL in rows:
        ends = ends | find_goal_changes(rows[GOAL])
    return find_episodes(ends, arrivals=arrivals, limit=limit, final=final)


def _append(task: D4RLTask, writer: EpisodeStoreWriter, rows: Block, found: EpisodeRows, row: int) -> None:
    """Append the episodes found in these rows, which begin at `row` of the file."""
    starts, steps = found.starts, slice(0, found.used)
    if found.lengths.sum() < found.used:
        starts = np.cumsum(found.lengths) - found.lengths
        steps = step_indices(found.starts, found.lengths)
    observations, rewards = rows["observations"][steps], rows["rewards"][steps]
    terminated = rows["terminals"][found.starts + found.lengths - 1]
    if task.goal is not None:
        goals = rows[GOAL][steps] if GOAL in rows else np.broadcast_to(task.goal, (len(rewards), len(task.goal)))
        observations = np.concatenate([observations, goals.astype(np.float32)], axis=1)
    if task.family is Family.maze2d:
        terminated = np.zeros_like(terminated)
    if task.family is Family.kitchen:
        rewards = kitchen_rewards(observations, rewards, starts)
        terminated = terminated & (np.add.reduceat(rewards, starts) >= _KITCHEN_ASKED)
    writer.append_many(
        observations,
        rows["actions"][steps],
        rewards,
        found.lengths,
        terminated=terminated,
        episode_names=_RowNames(row + found.starts, found.lengths),
    )


class _RowNames(Sequence[str]):
    """The rows of the file from which episodes come, formatted lazily for errors."""

    def __init__(self, starts: np.ndarray, lengths: np.ndarray) -> None:
        self.starts, self.lengths = starts, lengths

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "_RowNames": ...
    def __getitem__(self, index: int | slice) -> "str | _RowNames":
        if isinstance(index, slice):
            return _RowNames(self.starts[index], self.lengths[index])
        return f"rows {self.starts[index]} to {self.starts[index] + self.lengths[index] - 1}"
