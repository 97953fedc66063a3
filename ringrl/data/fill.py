"""Assembly of chain arrays from a store by gathering individual steps, in any order."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from ringrl.data.pages import PageBudget
from ringrl.data.store import EpisodeStore
from ringrl.types import Chain, Context, Normalization

BLOCK_STEPS = 1 << 13  # steps gathered at a time
SCALARS = (
    *("rewards", "return_to_go", "completion", "loss_mask"),
    *("previous_rewards", "previous_completion", "previous_mask"),
)  # float32
NUMBERS = ("timesteps", "trajectories", "positions", "segment_ids")  # int32
ALIGNMENT = 64  # bytes, of each field in the shared buffer
Arrays = dict[str, np.ndarray]  # by field of a `Chain`


@dataclasses.dataclass(frozen=True)
class Trajectories:
    """Precomputed data of each trajectory of B chains, flattened over chains: (B * N,).

    A step's address is its position in its chain plus `steps` for every chain before, so that one binary search finds
    the trajectory of any step of any chain.
    """

    chain_ends: np.ndarray  # (B,) address past the last step of each chain
    starts: np.ndarray  # address of the first step
    ends: np.ndarray  # address past the last step
    visible_from: np.ndarray  # address of the first step visible to this trajectory's steps
    to_store: np.ndarray  # offset from an address to the step's index in the store
    to_timestep: np.ndarray  # offset from an address to the step within the episode
    completed: np.ndarray  # timestep of completion, or -1
    above_own: np.ndarray  # float64: target return minus own return
    numbers: np.ndarray  # index in the chain
    supervised: np.ndarray  # whether its actions are supervised


@dataclasses.dataclass(frozen=True)
class StepFiller:
    """Writes chains of up to `steps` steps by gathering each step; `places` may be in any order."""

    store: EpisodeStore
    normalization: Normalization
    context: Context
    steps: int
    pages: PageBudget

    def chains(self, trajectories: Trajectories, places: np.ndarray) -> Chain:
        """(B, P, ...) arrays, with step `places[p]` of every chain at memory position p."""
        chains = len(trajectories.chain_ends)
        arrays = empty_arrays(self.store, chains, len(places))
        for name, values in arrays.items():
            values[...] = -1 if name == "segment_ids" else 0
        arrays["positions"][...] = np.where(places < self.steps, places, 0)
        # A block at a time, so that intermediate results stay in the cache and do not raise peak memory.
        for rows, part in _blocks(chains, len(places)):
            self.fill({name: values[rows, part] for name, values in arrays.items()}, trajectories, rows, places[part])
        return Chain(**arrays)

    def fill(self, block: Arrays, trajectories: Trajectories, rows: slice, places: np.ndarray) -> None:
        """Write the steps at `places` of the chains `rows` over a block's padding."""
        store, scale, context = self.store, self.normalization, self.context
        addresses = places + self.steps * np.arange(rows.start, rows.stop)[:, None]
        valid = addresses < trajectories.chain_ends[rows, None]
        whole = bool(valid.all())

        # From here on arrays have one entry per valid step, flattened over chains: packed (V, ...).
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
        # R* minus the rewards before the step; the episode's own return minus those is the store's return-to-go.
        return_to_go = trajectories.above_own[which] + store.returns_to_go[steps]
        put("observations", scale.observations(store.observations.take(steps, axis=0)))
        put("actions", scale.actions(store.actions.take(steps, axis=0)))
        put("rewards", scale.rewards(store.rewards[steps]))
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
        self.pages.touch(steps)
        if context is Context.step:
            return

        hidden = np.flatnonzero(addresses == trajectories.visible_from[which])  # no previous step, or not visible
        which -= addresses == trajectories.starts[which]
        steps = addresses + (trajectories.to_store[which] - 1)
        steps[hidden] = 0
        timesteps = addresses + (trajectories.to_timestep[which] - 1)

        def put_previous(name: str, packed: np.ndarray) -> None:
            packed[hidden] = 0
            put(f"previous_{name}", packed)

        put_previous("actions", scale.actions(store.actions.take(steps, axis=0)))
        put_previous("rewards", scale.rewards(store.rewards[steps]))
        put_previous("completion", timesteps == trajectories.completed[which])
        put_previous("mask", np.ones(len(steps), bool))


def empty_arrays(store: EpisodeStore, chains: int, places: int) -> Arrays:
    """Uninitialized arrays for the fields of a `Chain` of that size.

    They share one buffer: the system zeroes the memory of a large one by huge pages, which is much faster.
    """
    action = store.actions.shape[1:], store.actions.dtype
    rows: dict[str, tuple[tuple[int, ...], np.dtype]] = {
        "observations": ((store.spec.observation_size,), np.dtype(np.float32)),
        **dict.fromkeys(("actions", "previous_actions"), action),
        **dict.fromkeys(SCALARS, ((), np.dtype(np.float32))),
        **dict.fromkeys(NUMBERS, ((), np.dtype(np.int32))),
    }
    sizes = {name: chains * places * math.prod(row) * dtype.itemsize for name, (row, dtype) in rows.items()}
    buffer = np.empty(sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes.values()), np.uint8)
    arrays, begin = {}, 0
    for name, (row, dtype) in rows.items():
        arrays[name] = buffer[begin : begin + sizes[name]].view(dtype).reshape(chains, places, *row)
        begin += -(-sizes[name] // ALIGNMENT) * ALIGNMENT
    return arrays


def _blocks(chains: int, places: int) -> Iterator[tuple[slice, slice]]:
    """Slices that cover chains and positions in blocks of about `BLOCK_STEPS` steps."""
    rows, columns = max(1, BLOCK_STEPS // max(1, places)), min(BLOCK_STEPS, max(1, places))
    for row in range(0, chains, rows):
        for column in range(0, places, columns):
            yield slice(row, min(row + rows, chains)), slice(column, column + columns)
