"""Chains of hindsight: trajectories of one task, sorted by return, relabelled with the best of them.

DESIGN.md, section 3; Liu and Abbeel 2023 (arXiv 2305.16554). Windows of one trajectory: Chen et al. 2021 (arXiv
2106.01345). Letters as in the shape legend of `ringrl.types`.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from ringrl.data.config import ChainConfig, Context, Order, Supervise
from ringrl.data.store import RESIDENT_BYTES, EpisodeStore
from ringrl.errors import RingRLError
from ringrl.types import Chain, Normalization

RETURN_TOLERANCE = 1e-6  # of max(1, |R*|): a return this close below the target return R* has reached it
BLOCK_STEPS = 1 << 13  # steps filled in at a time
SCALARS = (
    *("rewards", "return_to_go", "completion", "loss_mask"),
    *("previous_rewards", "previous_completion", "previous_mask"),
)  # float32


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

    def batch(
        self,
        seed: int,
        index: int,
        batch_size: int,
        rows: slice | None = None,
        places: Int[np.ndarray, " places"] | None = None,
    ) -> Chain:
        """Batch number `index` of the stream `seed`: (B, P, ...) numpy arrays, scaled.

        Of its chains only `rows`, and of their steps only `places`, as in `assemble`: time and memory are linear in
        that slice, but for a few numbers a trajectory.
        """
        episodes, first_steps = self.draw(seed, index, batch_size)
        rows = slice(None) if rows is None else rows
        return self.assemble(episodes[rows], first_steps[rows], places)

    def draw(self, seed: int, index: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """What `assemble` makes that batch of: the episodes (B, N), and the first step of each."""
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
        """The chains of the given episodes (B, N); ties in return, and `order=random`, keep the order given.

        `first_steps` (B, N) is where each window starts in its episode, for a sampler with `window_steps`. `places`
        says which step of every chain stands at each place of memory, by default all in order; a number of
        `self.steps` or more is padding.
        """
        places = np.arange(self.steps) if places is None else places
        trajectories = self._trajectories(episodes, first_steps)
        arrays = self._padding(len(episodes), places)
        # A block at a time, so that what is computed on the way stays in the cache and off the peak of memory.
        for rows, part in _blocks(len(episodes), len(places)):
            block = {name: values[rows, part] for name, values in arrays.items()}
            self._fill(block, trajectories, rows, places[part])
        return Chain(**arrays)

    def _trajectories(self, episodes: np.ndarray, first_steps: np.ndarray | None) -> "_Trajectories":
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
        reached = returns >= targets - RETURN_TOLERANCE * np.maximum(1.0, np.abs(targets))
        numbers = np.broadcast_to(np.arange(episodes.shape[1], dtype=np.int32), episodes.shape)
        supervised = numbers == numbers[0, -1] if config.supervise is Supervise.last else np.ones_like(numbers)
        return _Trajectories(
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

    def _padding(self, chains: int, places: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of a `Chain` without a step in it."""
        shape, store = (chains, len(places)), self.store
        actions = {
            name: np.zeros((*shape, *store.actions.shape[1:]), store.actions.dtype)
            for name in ("actions", "previous_actions")
        }
        positions = np.where(places < self.steps, places, 0).astype(np.int32)
        return {
            "observations": np.zeros((*shape, store.spec.observation_size), np.float32),
            **actions,
            **{name: np.zeros(shape, np.float32) for name in SCALARS},
            **{name: np.zeros(shape, np.int32) for name in ("timesteps", "trajectories")},
            "positions": np.broadcast_to(positions, shape).copy(),
            "segment_ids": np.full(shape, -1, np.int32),
        }

    def _fill(
        self, block: dict[str, np.ndarray], trajectories: "_Trajectories", rows: slice, places: np.ndarray
    ) -> None:
        """Write the steps at `places` of the chains `rows` over a block's padding."""
        store, scale, context = self.store, self.normalization, self.config.context
        addresses = places + self.steps * np.arange(rows.start, rows.stop)[:, None]
        valid = addresses < trajectories.chain_ends[rows, None]
        whole = bool(valid.all())

        # From here on one value a valid step, chain after chain: packed (V, ...).
        def put(name: str, packed: np.ndarray) -> None:
            if whole:
                block[name][...] = packed.reshape(block[name].shape)
            else:
                block[name][valid] = packed

        addresses = addresses.ravel() if whole else addresses[valid]
        which = np.searchsorted(trajectories.ends, addresses, side="right")
        steps = addresses + trajectories.to_store[which]
        timesteps = addresses + trajectories.to_timestep[which]
        numbers = trajectories.numbers[which]
        # R* minus what was earned before the step; the own return minus that is the store's return to go.
        return_to_go = trajectories.above_own[which] + store.returns_to_go[steps]
        reward_scale = np.float32(scale.reward_scale)
        put("observations", scale.observations(store.observations.take(steps, axis=0)))
        put("actions", store.actions.take(steps, axis=0))
        put("rewards", store.rewards[steps] / reward_scale)
        put("return_to_go", return_to_go / scale.return_scale)
        put("completion", timesteps == trajectories.completed[which])
        put("timesteps", timesteps)
        put("trajectories", numbers)
        put("loss_mask", trajectories.supervised[which])
        match context:
            case Context.chain:
                put("segment_ids", np.zeros_like(numbers))
            case Context.trial:
                put("segment_ids", numbers)
            case Context.step:
                put("segment_ids", np.broadcast_to(places, valid.shape)[valid])
        self._bound_memory(steps)
        if context is Context.step:
            return

        hidden = np.flatnonzero(addresses == trajectories.visible_from[which])  # no step before, or not in sight
        which -= addresses == trajectories.starts[which]
        steps = addresses + (trajectories.to_store[which] - 1)
        steps[hidden] = 0
        timesteps = addresses + (trajectories.to_timestep[which] - 1)

        def put_previous(name: str, packed: np.ndarray) -> None:
            packed[hidden] = 0
            put(f"previous_{name}", packed)

        put_previous("actions", store.actions.take(steps, axis=0))
        put_previous("rewards", store.rewards[steps] / reward_scale)
        put_previous("completion", timesteps == trajectories.completed[which])
        put_previous("mask", np.ones(len(steps), bool))

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

    def _bound_memory(self, steps: np.ndarray) -> None:
        """Give mapped pages back before more than `RESIDENT_BYTES` of a larger store are resident."""
        total = self.store.step_bytes
        if total <= RESIDENT_BYTES or not len(steps):
            return
        # Reading a page maps its neighbours too, in each of the four step columns: 64 KiB on Linux, and twice that as
        # measured where its page cache has large folios (6.18).
        row, jump = total // len(self.store.rewards), 4 << 17
        self._touched_bytes += jump + int(np.minimum(row * np.abs(np.diff(steps)), jump).sum())
        if self._touched_bytes > RESIDENT_BYTES:
            self.store.release()
            self._touched_bytes = 0


@dataclasses.dataclass(frozen=True)
class _Trajectories:
    """What is known of each trajectory of B chains, chain after chain: (B * N,).

    A step's address is its position in its chain plus `steps` for every chain before, so that one sorted search
    finds the trajectory of any step of any chain.
    """

    chain_ends: np.ndarray  # (B,) address past the last step of each chain
    starts: np.ndarray  # address of the first step
    ends: np.ndarray  # address past the last step
    visible_from: np.ndarray  # address of the first step that this trajectory's steps can see
    to_store: np.ndarray  # from an address to the step's index in the store
    to_timestep: np.ndarray  # from an address to the step within the episode
    completed: np.ndarray  # timestep of completion, or -1
    above_own: np.ndarray  # target return minus own return
    numbers: np.ndarray  # place in the chain
    supervised: np.ndarray  # whether its actions are


def _blocks(chains: int, places: int) -> Iterator[tuple[slice, slice]]:
    """Slices of chains and of places that cover both, about `BLOCK_STEPS` steps at a time."""
    rows, columns = max(1, BLOCK_STEPS // max(1, places)), min(BLOCK_STEPS, max(1, places))
    for row in range(0, chains, rows):
        for column in range(0, places, columns):
            yield slice(row, min(row + rows, chains)), slice(column, column + columns)
