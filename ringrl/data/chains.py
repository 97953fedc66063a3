"""Chains of hindsight: trajectories of one task, sorted by return, relabeled with the best of them.

See docs/chains.md; Liu and Abbeel 2023 (arXiv 2305.16554). Windows of one trajectory: Chen et al. 2021 (arXiv
2106.01345). Letters are those of the shape legend of `ringrl.types`.
"""

import numpy as np
from jaxtyping import Int

from ringrl.data.config import ChainConfig, Context, Order, Supervise
from ringrl.data.fill import StepFiller, Trajectories
from ringrl.data.normalization import fit_normalization
from ringrl.data.pages import PageBudget
from ringrl.data.runs import RunFiller
from ringrl.data.store import EpisodeStore
from ringrl.errors import RingRLError
from ringrl.types import Chain, Normalization

RETURN_TOLERANCE = 1e-6  # of return_scale, or |R*|: a return this close below the target return R* has reached it


class ChainSampler:
    """Draws batches of chains; `batch` is a pure function of (seed, index).

    A chain samples a task uniformly, then N distinct episodes of it uniformly, in a random order that also breaks ties
    in return. With `window_steps` = K a chain is a window of K steps of one episode: the episode with probability
    proportional to its length T, the start `clip(u, 0, T - K)` with u uniform in -(K - 1) .. T - 1. So windows are full
    if the episode is long enough, no step is rarer than those of the middle, and the start of an episode, where acting
    begins with a short history, is sampled most often.

    Attributes:
        steps: P, the steps of every chain, padding included.
        spec: sizes of the data and bounds of the scaled actions, from which an agent is made.
        normalization: the scales applied to chains.
    """

    def __init__(
        self, store: EpisodeStore, config: ChainConfig | None = None, normalization: Normalization | None = None
    ) -> None:
        """Create a sampler.

        Args:
            store: the episodes.
            config: how episodes form chains; by default `ChainConfig()`.
            normalization: by default `fit_normalization(store)`, which reads every step once.

        Raises:
            RingRLError: a task has fewer than N episodes.
        """
        config = ChainConfig() if config is None else config
        normalization = fit_normalization(store) if normalization is None else normalization
        self.store, self.config, self.normalization = store, config, normalization
        self.spec = normalization.shown_spec(store.spec)
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
                int(np.sort(store.lengths[self._select_episodes(task)])[-config.trajectories :].sum())
                for task in range(len(tasks))
            )
        self._cumulative_lengths = np.cumsum(store.lengths)
        self._by_step = StepFiller(store, normalization, config.context, self.steps, PageBudget(store))
        self._by_run = RunFiller(self._by_step)

    def batch(
        self,
        seed: int,
        index: int,
        batch_size: int,
        rows: slice | None = None,
        places: Int[np.ndarray, " places"] | None = None,
    ) -> Chain:
        """Batch number `index` of the stream given by `seed`, scaled.

        Args:
            seed: seed of the stream.
            index: index of the batch, from 0.
            batch_size: B, chains in a batch.
            rows: the chains of the batch to build; by default all.
            places: the steps to build, as in `assemble`. Time and memory are linear in the requested part, except for a
                few numbers per trajectory.

        Returns:
            (B, P, ...) numpy arrays.
        """
        episodes, first_steps = self.draw(seed, index, batch_size)
        rows = slice(None) if rows is None else rows
        return self.assemble(episodes[rows], first_steps[rows], places)

    def draw(self, seed: int, index: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Sample the episodes and first steps from which `assemble` builds a batch.

        Args:
            seed: seed of the stream.
            index: index of the batch, from 0.
            batch_size: B, chains in a batch.

        Returns:
            The episodes (B, N), and the first step of each (B, N).
        """
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))
        if self.config.window_steps:
            return self._draw_windows(generator, batch_size)
        episodes = self._draw_episodes(generator, batch_size)
        return episodes, np.zeros_like(episodes)

    def assemble(
        self,
        episodes: np.ndarray,
        first_steps: np.ndarray | None = None,
        places: Int[np.ndarray, " places"] | None = None,
    ) -> Chain:
        """Build the chains of the given episodes; ties in return, and `order=random`, keep the given order.

        Args:
            episodes: (B, N).
            first_steps: (B, N) where each window starts in its episode, for a sampler with `window_steps`.
            places: the step of every chain at each memory position, by default all in order; a number of `self.steps`
                or more is padding.

        Returns:
            (B, P, ...) numpy arrays, scaled.
        """
        places = np.arange(self.steps) if places is None else places
        trajectories = self._trajectories(episodes, first_steps)
        chains = self._by_run.chains(trajectories, places)
        return self._by_step.chains(trajectories, places) if chains is None else chains

    def _trajectories(self, episodes: np.ndarray, first_steps: np.ndarray | None) -> Trajectories:
        config, store = self.config, self.store
        returns = store.returns[episodes]
        if config.order is not Order.random:
            descending = config.order is Order.descending
            order = np.argsort(-returns if descending else returns, axis=1, kind="stable")
            episodes, returns = np.take_along_axis(episodes, order, 1), np.take_along_axis(returns, order, 1)
        first_steps = np.zeros_like(episodes) if first_steps is None else first_steps
        lengths = store.lengths[episodes] - first_steps
        if config.window_steps:
            lengths = np.minimum(lengths, self.steps)
        chain_starts = self.steps * np.arange(len(episodes))[:, None]
        ends = chain_starts + np.cumsum(lengths, axis=1)
        starts = ends - lengths
        visible_from = np.broadcast_to(chain_starts, ends.shape) if config.context is Context.chain else starts
        targets = np.broadcast_to(returns.max(axis=1, keepdims=True), returns.shape) if config.relabel else returns
        size = np.maximum(self.normalization.return_scale, np.abs(targets))
        reached = returns >= targets - RETURN_TOLERANCE * size
        numbers = np.broadcast_to(np.arange(episodes.shape[1], dtype=np.int32), episodes.shape)
        supervised = numbers == numbers[0, -1] if config.supervise is Supervise.last else np.ones_like(numbers)
        return Trajectories(
            chain_ends=ends[:, -1],
            starts=starts.ravel(),
            ends=ends.ravel(),
            visible_from=visible_from.ravel(),
            to_store=(store.starts[episodes] + first_steps - starts).ravel(),
            to_timestep=(first_steps - starts).ravel(),
            completed=np.where(reached, store.lengths[episodes] - 1, -1).ravel(),
            above_own=(targets - returns).ravel(),
            numbers=numbers.ravel(),
            supervised=supervised.ravel(),
        )

    def _select_episodes(self, task: int) -> np.ndarray:
        first = self._task_starts[task]
        return self._by_task[first : first + self._task_counts[task]]

    def _draw_episodes(self, generator: np.random.Generator, chains: int) -> np.ndarray:
        """Sample (B, N) distinct episodes of one task per row (Floyd's algorithm, vectorized over rows)."""
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
