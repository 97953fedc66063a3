"""Summary statistics of a store: sizes, returns, lengths, tasks, policies, and the range of every dimension."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ringrl.data.joined import task_name
from ringrl.data.rules import column_range
from ringrl.data.store import EpisodeStore
from ringrl.types import ActionKind

QUANTILES = {"minimum": 0.0, "10 %": 0.1, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "90 %": 0.9, "maximum": 1.0}


def store_statistics(store: EpisodeStore, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """A plain JSON description of the episodes in view, in one pass over their steps and bounded memory.

    `returns` and `lengths` have quantiles and the mean; `tasks` and `policies` one row per task and policy;
    `observations` and continuous `actions` the minimum, maximum, mean and deviation of each dimension, discrete ones
    the `counts` of each.
    """
    return {
        "episodes": store.num_episodes,
        "steps": store.num_steps,
        "bytes": store.step_bytes * store.num_steps // len(store.rewards),
        "returns": _quantiles(store.returns),
        "lengths": _quantiles(store.lengths),
        "terminated_share": float(store.terminated.mean()),
        "tasks": _tasks(store),
        "policies": _policies(store),
        **_steps(store, progress),
    }


def default_target_return(store: EpisodeStore) -> float:
    """The target return of a policy when none is given.

    Args:
        store: the data that the policy was trained on.

    Returns:
        The mean over tasks of the best return in the data, in the environment's units.
    """
    return float(np.mean([store.returns[store.task_ids == task_id].max() for task_id in np.unique(store.task_ids)]))


def _quantiles(values: np.ndarray) -> dict[str, float]:
    found = np.quantile(values, list(QUANTILES.values())).tolist()
    return {**dict(zip(QUANTILES, found, strict=True)), "mean": float(values.mean())}


def _groups(ids: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Each id with the episodes that have it."""
    order = np.argsort(ids, kind="stable")
    found, first = np.unique(ids[order], return_index=True)
    return list(zip(found.tolist(), np.split(order, first[1:]), strict=True))


def _tasks(store: EpisodeStore) -> list[dict[str, Any]]:
    return [
        {
            "task_id": task_id,
            "name": task_name(store, task_id),
            "episodes": len(episodes),
            "steps": int(store.lengths[episodes].sum()),
            "best_return": float(store.returns[episodes].max()),
            "returns": _quantiles(store.returns[episodes]),
        }
        for task_id, episodes in _groups(store.task_ids)
    ]


def _policies(store: EpisodeStore) -> list[dict[str, Any]]:
    return [
        {
            "name": store.metadata["policies"][policy_id],
            "episodes": len(episodes),
            "mean_return": float(store.returns[episodes].mean()),
        }
        for policy_id, episodes in _groups(store.policy_ids)
    ]


def _steps(store: EpisodeStore, progress: Callable[[int, int], None] | None) -> dict[str, Any]:
    discrete = store.spec.action.kind is ActionKind.discrete
    measured = {"observations": _ColumnRanges(), "rewards": _ColumnRanges()} | (
        {} if discrete else {"actions": _ColumnRanges()}
    )
    counts, rewarded, done = np.zeros(store.spec.action.size, np.int64), 0, 0
    for indices in store.iterate_steps():
        # A slice reads in place; a list of steps would be gathered.
        in_a_row = bool((np.diff(indices) == 1).all())
        steps = slice(int(indices[0]), int(indices[-1]) + 1) if in_a_row else indices
        for name, ranges in measured.items():
            ranges.add(getattr(store, name)[steps].reshape(len(indices), -1))
        rewarded += int(np.count_nonzero(store.rewards[steps]))
        if discrete:
            counts += np.bincount(store.actions[steps], minlength=len(counts))
        store.release()
        done += len(indices)
        if progress is not None:
            progress(done, store.num_steps)
    rewards = {name: values[0] for name, values in measured["rewards"].result().items()}
    return {
        "observations": measured["observations"].result(),
        "actions": {"counts": counts.tolist()} if discrete else measured["actions"].result(),
        "rewards": rewards | {"share_not_zero": rewarded / done},
    }


class _ColumnRanges:
    """Minimum, maximum, mean and deviation of each column, over rows that arrive in chunks."""

    def __init__(self) -> None:
        self._rows, self._parts = 0, []

    def add(self, values: np.ndarray) -> None:
        if not self._parts:
            # Relative to a data point, so that the difference of large squares does not cancel.
            self._origin = values[0].astype(np.float64)
        centered, ones = values - self._origin, np.ones(len(values))
        self._parts.append((*column_range(values), ones @ centered, ones @ np.square(centered)))
        self._rows += len(values)

    def result(self) -> dict[str, list[float]]:
        low, high, total, squared = (np.asarray(part) for part in zip(*self._parts, strict=True))
        mean = total.sum(axis=0) / self._rows
        variance = np.maximum(squared.sum(axis=0) / self._rows - np.square(mean), 0.0)
        found = {
            "minimum": low.min(axis=0),
            "maximum": high.max(axis=0),
            "mean": mean + self._origin,
            "deviation": np.sqrt(variance),
        }
        return {name: values.tolist() for name, values in found.items()}
