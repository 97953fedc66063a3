"""Chains of hindsight: trajectories of one task, sorted by return, relabelled with the best of them.

DESIGN.md, section 3; Liu and Abbeel 2023 (arXiv 2305.16554). Windows of one trajectory: Chen et al. 2021 (arXiv
2106.01345). Letters as in the shape legend of `ringrl.types`.
"""

import numpy as np

from ringrl.data.config import ChainConfig, Context, Order, Supervise
from ringrl.data.store import RESIDENT_BYTES, EpisodeStore, step_indices
from ringrl.errors import RingRLError
from ringrl.types import Chain, Normalization

RETURN_TOLERANCE = 1e-6  # of max(1, |R*|): a return this close below the target return R* has reached it


class ChainSampler:
    """Draws batches of chains; `batch` is a pure function of (seed, index).

    A chain takes a task uniformly among tasks, then N distinct episodes of it uniformly, in an order without meaning,
    which is also how equal returns are ordered. With `window_steps` = K a chain is a window of K steps of one episode:
    the episode with probability proportional to its length T, the start `clip(u, 0, T - K)` with u uniform in
    -(K - 1) .. T - 1. So windows are full wherever an episode is long enough, no step is rarer than those of the
    middle, and the start of an episode, where acting begins with a short history, is seen most.

    Raises `RingRLError` when a task has fewer than N episodes.
    """

    def __init__(self, store: EpisodeStore, config: ChainConfig, normalization: Normalization) -> None:
        self.store, self.config, self.normalization = store, config, normalization
        self._by_task = np.argsort(store.task_ids, kind="stable")
        tasks, self._task_starts, self._task_counts = np.unique(
            store.task_ids[self._by_task], return_index=True, return_counts=True
        )
        poorest = int(np.argmin(self._task_counts))
        if self._task_counts[poorest] < config.trajectories:
            raise RingRLError(
                f"chain.trajectories={config.trajectories}: task {tasks[poorest]} of {store.path} has only "
                f"{self._task_counts[poorest]} episodes; set chain.trajectories={self._task_counts[poorest]} or less, "
                "keep a larger data.top_fraction, or collect more."
            )
        if config.window_steps:
            self.steps = min(config.window_steps, int(store.lengths.max()))
        else:
            self.steps = max(
                int(np.sort(store.lengths[self._episodes_of(task)])[-config.trajectories :].sum())
                for task in range(len(tasks))
            )
        self._cumulative_lengths = np.cumsum(store.lengths)
        self._touched_bytes = 0

    def batch(self, seed: int, index: int, batch_size: int) -> Chain:
        """Batch number `index` of the stream `seed`: (B, P, ...) numpy arrays, scaled."""
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))
        if self.config.window_steps:
            return self.assemble(*self._draw_windows(generator, batch_size))
        return self.assemble(self._draw_episodes(generator, batch_size))

    def assemble(self, episodes: np.ndarray, first_steps: np.ndarray | None = None) -> Chain:
        """The chains of the given episodes (B, N); ties in return, and `order=random`, keep the order given.

        `first_steps` (B, 1) is where each window starts in its episode, for a sampler with `window_steps`.
        """
        config, store = self.config, self.store
        returns = store.returns[episodes]
        if config.order is not Order.random:
            descending = config.order is Order.descending
            order = np.argsort(-returns if descending else returns, axis=1, kind="stable")
            episodes, returns = np.take_along_axis(episodes, order, 1), np.take_along_axis(returns, order, 1)
        chains, trajectories = episodes.shape
        first_steps = np.zeros_like(episodes) if first_steps is None else first_steps
        lengths = store.lengths[episodes] - first_steps
        if config.window_steps:
            lengths = np.minimum(lengths, self.steps)
        positions = np.arange(self.steps)
        valid = positions < lengths.sum(axis=1, keepdims=True)  # (B, P)

        # From here on one value a valid step, chain after chain: packed (V, ...).
        flat_lengths = lengths.ravel()
        steps = step_indices((store.starts[episodes] + first_steps).ravel(), flat_lengths)
        trajectory = np.repeat(np.tile(np.arange(trajectories), chains), flat_lengths)
        timestep = step_indices(first_steps.ravel(), flat_lengths)
        episode_steps = np.repeat(store.lengths[episodes].ravel(), flat_lengths)
        targets = np.broadcast_to(returns.max(axis=1, keepdims=True), returns.shape) if config.relabel else returns
        reached = returns >= targets - RETURN_TOLERANCE * np.maximum(1.0, np.abs(targets))
        # R* minus what was earned before the step; the own return minus that is the store's return to go.
        above_own = np.repeat((targets - returns).ravel(), flat_lengths)
        return_to_go = above_own + store.returns_to_go[steps]
        completion = np.repeat(reached.ravel(), flat_lengths) & (timestep == episode_steps - 1)
        supervised = trajectory == trajectories - 1 if config.supervise is Supervise.last else np.ones(len(steps))

        def padded(packed: np.ndarray, dtype: type = np.float32, padding: int = 0) -> np.ndarray:
            values = np.full((chains, self.steps, *packed.shape[1:]), padding, dtype)
            values[valid] = packed
            return values

        scale = self.normalization
        actions = padded(store.actions[steps], store.actions.dtype.type)
        rewards = padded(store.rewards[steps] / np.float32(scale.reward_scale))
        completion = padded(completion)
        trajectory_ids = padded(trajectory, np.int32)
        segment_ids = padded(self._segments(trajectory_ids)[valid], np.int32, padding=-1)
        previous = np.zeros(valid.shape, bool)
        previous[:, 1:] = (segment_ids[:, 1:] == segment_ids[:, :-1]) & valid[:, 1:]
        chain = Chain(
            observations=padded(scale.observations(store.observations[steps])),
            actions=actions,
            rewards=rewards,
            return_to_go=padded(return_to_go / scale.return_scale),
            completion=completion,
            previous_actions=_shift(actions, previous),
            previous_rewards=_shift(rewards, previous),
            previous_completion=_shift(completion, previous),
            previous_mask=previous.astype(np.float32),
            timesteps=padded(timestep, np.int32),
            trajectories=trajectory_ids,
            positions=np.broadcast_to(positions.astype(np.int32), valid.shape).copy(),
            segment_ids=segment_ids,
            loss_mask=padded(supervised),
        )
        self._bound_memory(flat_lengths)
        return chain

    def _segments(self, trajectory_ids: np.ndarray) -> np.ndarray:
        if self.config.context is Context.chain:
            return np.zeros_like(trajectory_ids)
        if self.config.context is Context.trial:
            return trajectory_ids
        return np.broadcast_to(np.arange(self.steps, dtype=np.int32), trajectory_ids.shape)

    def _episodes_of(self, task: int) -> np.ndarray:
        first = self._task_starts[task]
        return self._by_task[first : first + self._task_counts[task]]

    def _draw_episodes(self, generator: np.random.Generator, chains: int) -> np.ndarray:
        """(B, N) distinct episodes of one task a row (Floyd's sampling, a row at a time in parallel)."""
        size = self.config.trajectories
        tasks = generator.integers(len(self._task_counts), size=chains)
        counts = self._task_counts[tasks]
        chosen = np.empty((chains, size), np.int64)
        for column in range(size):
            last = counts - size + column
            candidate = generator.integers(0, last + 1)
            taken = (chosen[:, :column] == candidate[:, None]).any(axis=1)
            chosen[:, column] = np.where(taken, last, candidate)
        chosen = generator.permuted(chosen, axis=1)
        return self._by_task[self._task_starts[tasks][:, None] + chosen]

    def _draw_windows(self, generator: np.random.Generator, chains: int) -> tuple[np.ndarray, np.ndarray]:
        steps = generator.integers(self._cumulative_lengths[-1], size=(chains, 1))
        episodes = np.searchsorted(self._cumulative_lengths, steps, side="right")
        lengths = self.store.lengths[episodes]
        first_steps = generator.integers(1 - self.steps, lengths)
        return episodes, np.clip(first_steps, 0, np.maximum(lengths - self.steps, 0))

    def _bound_memory(self, lengths: np.ndarray) -> None:
        """Give mapped pages back before more than `RESIDENT_BYTES` of a larger store are resident."""
        total = self.store.step_bytes
        if total <= RESIDENT_BYTES:
            return
        # Reading a page maps its neighbours too (64 KiB on Linux, in each of the four step columns).
        row = total // len(self.store.rewards)
        self._touched_bytes += int(lengths.sum()) * row + len(lengths) * (4 << 16)
        if self._touched_bytes > RESIDENT_BYTES:
            self.store.release()
            self._touched_bytes = 0


def _shift(values: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Values of the step before, zeros where there is none in sight; `previous` is (B, P) bool."""
    shifted = np.zeros_like(values)
    shifted[:, 1:] = values[:, :-1]
    shifted[~previous] = 0
    return shifted
