"""Normalization of a data set, fitted once and stored with the run, so that an agent's inputs are of order 1."""

import itertools

import numpy as np

from ringrl.data.rules import column_range
from ringrl.data.store import EpisodeStore, step_indices
from ringrl.types import ActionKind, ActionSpec, Normalization

LIMIT = 10.0  # limit, in deviations from the mean, to which observations and rewards are clipped
ROUNDING = float(np.finfo(np.float32).eps)  # of a column's size: a smaller deviation is float32's own
SMALLEST = float(np.finfo(np.float32).tiny)  # below it float32 loses precision, so it is the smallest divisor
ALL_BUT_OUTLIERS = 0.999  # the fraction of rows from which a scale is measured
SAMPLE_BYTES = 32 << 20  # of observations sampled for that
SAMPLE_ROWS = 1 << 14
NARROW = 0.1  # fraction of the bounds: actions that span less are scaled by their range in the data
RETURN_ROUNDING = 1e-6  # of the largest return: returns to go are in float32, returns in float64


def fit_normalization(store: EpisodeStore, normalize_observations: bool = True) -> Normalization:
    """Fit scales: observations to mean 0 and deviation 1, rewards and returns to order 1, actions to [-1, 1].

    An observation column is constant if its deviation is within float32's rounding of its values; then it is only
    centered, and divided by its size if that is above 1. Its scale is at least a tenth of the bound that all but a
    thousandth of the rows stay within; if rarer rows alone would make it over ten times that bound, these outliers
    count as ten times the bound. Values more than `LIMIT` scales away are clipped to `LIMIT`.

    `reward_scale` is the root mean square of the nonzero rewards (so that rare rewards count as much as dense ones),
    with the same treatment of outliers. `return_scale` is the largest absolute return-to-go in any chain, with or
    without relabeling by the best return of the task, so also the largest absolute return. Each is 1 if there is no
    such reward or return.

    Continuous actions are scaled by their bounds; a dimension of which the data span less than a tenth is scaled by
    their range in the data. One pass over the steps, in bounded memory.

    Args:
        store: the data.
        normalize_observations: whether to scale observations.

    Returns:
        The scales, which the loader and the acting policy share.
    """
    measured = _Accumulator(store)
    for first, last in _chunks(store):
        measured.add(np.arange(first, last))
        store.release()
    mean, scale = measured.observations()
    if not normalize_observations:
        mean, scale = np.zeros(store.spec.observation_size), np.ones(store.spec.observation_size)
    center, half = measured.actions()
    return Normalization(
        observation_mean=mean.astype(np.float32),
        observation_std=scale.astype(np.float32),
        reward_scale=measured.reward_scale(),
        return_scale=measured.return_scale(),
        action_center=center,
        action_half=half,
        observation_limit=LIMIT if normalize_observations else None,
        reward_limit=LIMIT,
    )


def _chunks(store: EpisodeStore, chunk_steps: int = 1 << 16) -> list[tuple[int, int]]:
    """First and last + 1 episode of each chunk: whole episodes of about that many steps together."""
    chunk = np.cumsum(store.lengths) // chunk_steps
    cuts = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), store.num_episodes]
    return list(itertools.pairwise(cuts))


class _Accumulator:
    """Accumulated statistics from which the scales are computed."""

    def __init__(self, store: EpisodeStore) -> None:
        self._store, size = store, store.spec.observation_size
        # Relative to a data point, so that the difference of large squares does not cancel.
        self._origin = store.observations[store.starts[0]].astype(np.float64)
        self._total, self._squares, self._steps = np.zeros(size), np.zeros(size), 0
        self._low, self._high = np.full(size, np.inf), np.full(size, -np.inf)
        rows = min(SAMPLE_ROWS, max(256, SAMPLE_BYTES // (4 * size)))
        self._every = -(-store.num_steps // rows)
        self._sample: list[np.ndarray] = []
        self._reward_squares, self._rewarded, self._rewards = 0.0, 0, list[np.ndarray]()
        tasks, task = np.unique(store.task_ids, return_inverse=True)
        best = np.full(len(tasks), -np.inf)
        np.maximum.at(best, task, store.returns)
        self._above_own = best[task] - store.returns  # as a chain with the best trajectory of a task relabels them
        self._largest_to_go = 0.0
        self._action_low, self._action_high = np.inf, -np.inf

    def add(self, episodes: np.ndarray) -> None:
        """Accumulate all steps of these episodes."""
        store = self._store
        indices = step_indices(store.starts[episodes], store.lengths[episodes])
        observations = store.observations[indices]
        low, high = column_range(observations)
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        centered = observations - self._origin
        self._total += centered.sum(axis=0)
        self._squares += np.square(centered).sum(axis=0)
        self._sample.append(observations[-self._steps % self._every :: self._every].copy())
        self._steps += len(indices)

        rewards = store.rewards[indices].astype(np.float64)
        self._reward_squares += float(np.square(rewards).sum())
        rewarded = np.flatnonzero(rewards)
        self._rewarded += len(rewarded)
        self._rewards.append(np.abs(rewards[rewarded[:: self._every]]))

        starts = np.cumsum(store.lengths[episodes]) - store.lengths[episodes]
        for extreme in (np.minimum, np.maximum):
            to_go = extreme.reduceat(store.returns_to_go[indices], starts).astype(np.float64)
            relabeled = np.abs(to_go + self._above_own[episodes]).max()
            self._largest_to_go = max(self._largest_to_go, float(np.abs(to_go).max()), float(relabeled))
        if store.spec.action.kind is ActionKind.continuous:
            low, high = column_range(store.actions[indices])
            self._action_low = np.minimum(self._action_low, low)
            self._action_high = np.maximum(self._action_high, high)

    def observations(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and scale (O,) of each column."""
        mean = self._total / self._steps
        deviation = np.sqrt(np.maximum(self._squares / self._steps - np.square(mean), 0.0))
        mean += self._origin
        size = np.maximum(np.abs(self._low), np.abs(self._high))
        constant = (deviation <= ROUNDING * size) | (deviation < SMALLEST)

        sample = np.concatenate(self._sample).astype(np.float64)
        middle = np.median(sample, axis=0)
        usual = _usual_size(np.abs(sample - middle))
        scale = np.maximum(deviation, usual / LIMIT)
        rare = usual == 0  # nearly always the same value: only the differing rows are informative
        farthest = np.maximum(np.abs(self._low - mean), np.abs(self._high - mean))
        scale = np.where(rare, np.maximum(scale, farthest / LIMIT), scale)
        # Not if the usual rows differ by rounding alone.
        spoilt = (deviation > LIMIT * usual) & (usual > ROUNDING * np.abs(middle)) & (usual > SMALLEST) & ~constant
        if spoilt.any():
            bound = LIMIT * usual
            kept = np.clip(sample, middle - bound, middle + bound)
            mean, scale = np.where(spoilt, kept.mean(axis=0), mean), np.where(spoilt, kept.std(axis=0), scale)
        return mean, np.where(constant, np.maximum(size, 1.0), scale)

    def reward_scale(self) -> float:
        """Root mean square of the nonzero rewards."""
        if not self._rewarded:
            return 1.0
        scale, sample = float(np.sqrt(self._reward_squares / self._rewarded)), np.concatenate(self._rewards)
        usual = float(_usual_size(sample[:, None])[0])
        if scale > LIMIT * usual > LIMIT * SMALLEST:
            scale = float(np.sqrt(np.square(np.minimum(sample, LIMIT * usual)).mean()))
        return scale if scale >= SMALLEST else 1.0

    def return_scale(self) -> float:
        """The largest absolute return-to-go in a chain."""
        largest = float(np.abs(self._store.returns).max())
        if self._largest_to_go > (1.0 + RETURN_ROUNDING) * largest:
            largest = self._largest_to_go
        return largest if largest >= SMALLEST else 1.0

    def actions(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Center and half range (A,) float32 of each dimension; None if actions need no scaling."""
        if self._store.spec.action.kind is not ActionKind.continuous:
            return None, None
        low, high = _range_of_actions(self._store.spec.action, self._action_low, self._action_high)
        center, half = ((low / 2 + high / 2).astype(np.float32), (high / 2 - low / 2).astype(np.float32))
        half = np.where(half >= SMALLEST, half, np.float32(0.0))
        return (None, None) if (center == 0).all() and (half == 1).all() else (center, half)


def _range_of_actions(
    spec: ActionSpec, seen_low: np.ndarray | float, seen_high: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (A,) of each dimension, or the range of the data if that is far narrower."""
    low, high = np.asarray(spec.low, np.float64), np.asarray(spec.high, np.float64)
    with np.errstate(invalid="ignore"):
        narrow = ~(seen_high - seen_low >= NARROW * (high - low))
    return np.where(narrow, seen_low, low), np.where(narrow, seen_high, high)


def _usual_size(sizes: np.ndarray) -> np.ndarray:
    """The bound that all but a thousandth of the rows (n, K), and at least one, stay within: (K,)."""
    return np.quantile(sizes, ALL_BUT_OUTLIERS, axis=0, method="lower")
