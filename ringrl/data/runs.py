"""Assembly of chain arrays by runs: stretches of a trajectory that are contiguous in the store.

For long trajectories with positions mostly in order: whole chains, and shards in the contiguous or the zigzag layout.
The result is bit-identical to `ringrl.data.fill.StepFiller`, at nearly the speed of a copy.
"""

import numpy as np

from ringrl.data.fill import Arrays, StepFiller, Trajectories, empty_arrays
from ringrl.types import Chain, Context, clip_to_limit

WORTHWHILE_STEPS = 200  # mean run length from which copying runs is faster than gathering steps
TILE_NUMBERS = 1 << 15  # observation values scaled at a time: with their scales they stay in a core's cache
SEARCHED_PLACES = 1 << 16  # searched for spans at a time
PREVIOUS = ("previous_actions", "previous_rewards", "previous_completion", "previous_mask")
Span = tuple[int, int, int]  # first memory position, last + 1, and the step at the first


class RunFiller:
    """Writes the arrays of `StepFiller.chains` run by run."""

    def __init__(self, filler: StepFiller) -> None:
        self._filler, scale = filler, filler.normalization
        self._store, self._context = filler.store, filler.context
        size = self._store.spec.observation_size
        self._piece = min(max(1, TILE_NUMBERS // size), int(self._store.lengths.max()))
        # Tiled, because NumPy takes twice as long to broadcast rows of a few numbers.
        self._mean, self._std = (
            np.tile(values, (self._piece, 1)) for values in (scale.observation_mean, scale.observation_std)
        )
        self._count = np.arange(self._piece, dtype=np.int32)

    def chains(self, trajectories: Trajectories, places: np.ndarray) -> Chain | None:
        """Same as `StepFiller.chains`; None if runs are too short for this to be faster."""
        mean_length = (trajectories.ends - trajectories.starts).mean()
        spans = find_spans(places, most=1 + len(places) / WORTHWHILE_STEPS - len(places) / mean_length)
        if spans is None:
            return None
        arrays = empty_arrays(self._store, len(trajectories.chain_ends), len(places))
        for row, chain_end in enumerate(trajectories.chain_ends.tolist()):
            chain = {name: values[row] for name, values in arrays.items()}
            for begin, end, place in spans:
                address = place + row * self._filler.steps
                filled = min(end, max(begin, begin + chain_end - address))
                for name, values in chain.items():
                    values[filled:end] = -1 if name == "segment_ids" else 0
                self._fill_positions(chain["positions"][begin:end], place)
                if begin == filled:
                    continue
                if self._context is not Context.step:
                    # The step before the first is not in this span and is gathered. The others are copied.
                    block = {name: values[row : row + 1, begin : begin + 1] for name, values in arrays.items()}
                    self._filler.fill(block, trajectories, slice(row, row + 1), np.array([place]))
                self._fill_span(chain, trajectories, begin, filled, address)
        return Chain(**arrays)

    def _fill_positions(self, positions: np.ndarray, place: int) -> None:
        """Number the positions from `place` on, over zeros; those after a whole chain stay 0."""
        known = min(len(positions), max(0, self._filler.steps - place))
        for first in range(0, known, self._piece):
            part = positions[first : min(known, first + self._piece)]
            np.add(self._count[: len(part)], place + first, out=part)

    def _fill_span(self, chain: Arrays, trajectories: Trajectories, begin: int, end: int, address: int) -> None:
        """Write steps from `address` on at positions begin .. end - 1 of a chain, except `previous_*` of the first."""
        stop, offset = address + end - begin, begin - address
        first = int(np.searchsorted(trajectories.ends, address, side="right"))
        last = int(np.searchsorted(trajectories.starts, stop, side="left"))
        part = slice(first, last)
        runs = zip(
            np.maximum(trajectories.starts[part], address).tolist(),
            np.minimum(trajectories.ends[part], stop).tolist(),
            trajectories.to_store[part].tolist(),
            trajectories.to_timestep[part].tolist(),
            trajectories.above_own[part],  # not a list: its float64 must stay one
            trajectories.numbers[part].tolist(),
            trajectories.supervised[part].tolist(),
            strict=True,
        )
        for run_start, run_stop, to_store, to_timestep, above_own, number, supervised in runs:
            for start in range(run_start, run_stop, self._piece):
                size = min(self._piece, run_stop - start)
                to = slice(start + offset, start + offset + size)
                self._copy_rows(chain, to, slice(start + to_store, start + to_store + size), above_own)
                np.add(self._count[:size], start + to_timestep, out=chain["timesteps"][to])
                chain["trajectories"][to] = number
                chain["loss_mask"][to] = supervised
                if self._context is not Context.step:
                    after = slice(to.start + 1, min(end, to.stop + 1))
                    seen = slice(to.start, after.stop - 1)
                    chain["previous_actions"][after] = chain["actions"][seen]
                    chain["previous_rewards"][after] = chain["rewards"][seen]
        self._mark_span(chain, trajectories, part, begin, end, address)

    def _mark_span(
        self, chain: Arrays, trajectories: Trajectories, part: slice, begin: int, end: int, address: int
    ) -> None:
        """Write ends, segments and segment starts of the same steps; `part` are their trajectories."""
        stop, offset = address + end - begin, begin - address
        chain["completion"][begin:end] = 0
        completions = trajectories.completed[part] - trajectories.to_timestep[part]
        completions = completions[(trajectories.completed[part] >= 0) & (completions >= address)]
        completions = completions[completions < stop] + offset
        chain["completion"][completions] = 1
        match self._context:
            case Context.chain:
                chain["segment_ids"][begin:end] = 0
            case Context.trial:
                chain["segment_ids"][begin:end] = chain["trajectories"][begin:end]
            case Context.step:
                chain["segment_ids"][begin:end] = chain["positions"][begin:end]
                for name in PREVIOUS:
                    chain[name][begin:end] = 0
                return
        chain["previous_mask"][begin + 1 : end] = 1
        chain["previous_completion"][begin + 1 : end] = 0
        chain["previous_completion"][completions[completions < end - 1] + 1] = 1
        hidden = trajectories.visible_from[part]
        hidden = hidden[(hidden >= address) & (hidden < stop)] + offset
        for name in PREVIOUS:
            chain[name][hidden] = 0

    def _copy_rows(self, chain: Arrays, to: slice, rows: slice, above_own: np.float64) -> None:
        """Copy and scale the steps `rows` of the store."""
        store, scale, size = self._store, self._filler.normalization, rows.stop - rows.start
        observations = chain["observations"][to]
        with np.errstate(over="ignore"):  # a difference beyond float32 is beyond the limit as well
            np.subtract(store.observations[rows], self._mean[:size], out=observations)
            np.divide(observations, self._std[:size], out=observations)
        clip_to_limit(observations, scale.observation_limit)
        chain["actions"][to] = scale.actions(store.actions[rows])
        chain["rewards"][to] = scale.rewards(store.rewards[rows])
        return_to_go = np.add(store.returns_to_go[rows], above_own)
        return_to_go /= scale.return_scale
        chain["return_to_go"][to] = return_to_go
        self._filler.pages.touch_run(size)


def find_spans(places: np.ndarray, most: float) -> list[Span] | None:
    """The spans of `places` over which steps are consecutive, in order; None if there are more than `most`."""
    if not len(places):
        return []
    starts = [0]
    for first in range(1, len(places), SEARCHED_PLACES):
        breaks = np.flatnonzero(np.diff(places[first - 1 : first + SEARCHED_PLACES]) != 1)
        if len(starts) + len(breaks) > most:
            return None
        starts += (first + breaks).tolist()
    if len(starts) > most:
        return None
    return [(start, end, int(places[start])) for start, end in zip(starts, [*starts[1:], len(places)], strict=True)]
