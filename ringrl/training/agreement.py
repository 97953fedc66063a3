"""Decisions that all processes of a run make together.

Each function is a collective: every process calls it at the same place and from its main thread, because a collective
on a background thread could interleave with those of the training step in a different order. It waits for the steps
dispatched before it, so a loop calls it only occasionally (`FlagSynchronizer`). With one process it costs nothing.
"""

import time
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

_EVERY_SECONDS, _EVERY_STEPS = 1.0, 10


class FlagSynchronizer:
    """Synchronizes flags between processes: about once a second, at least every 10 steps.

    Only process 0's clock counts, so all processes synchronize after the same steps. A single process checks after each
    step.
    """

    def __init__(self, step: int) -> None:
        self._synchronized_step, self._synchronized_at = step, time.monotonic()
        self._next_step = step + 1

    def due(self, step: int) -> bool:
        """Whether to synchronize after this step."""
        return step >= self._next_step

    def synchronize(self, step: int, *flags: bool) -> tuple[bool, ...]:
        """Run `agree_each`, and schedule the next synchronization."""
        answers = agree_each(*flags)
        now = time.monotonic()
        seconds = max(now - self._synchronized_at, 1e-9) / max(step - self._synchronized_step, 1)
        wait = min(max(int(_EVERY_SECONDS / seconds), 1), _EVERY_STEPS) if jax.process_count() > 1 else 1
        self._synchronized_step, self._synchronized_at, self._next_step = step, now, step + agree_on_first([wait])[0]
        return answers


def agree_any(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    return agree_each(flag)[0]


def agree_each(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether it is set in any process; one message for all flags."""
    if jax.process_count() == 1:
        return flags
    gathered = np.asarray(multihost_utils.process_allgather(np.asarray(flags, np.int32)))
    return tuple(bool(column.any()) for column in gathered.reshape(-1, len(flags)).T)


def agree_on_first(values: Sequence[int]) -> list[int]:
    """Broadcast process 0's integers (below 2**31), whose number the other processes need not know."""
    if jax.process_count() == 1:
        return list(values)
    count = int(multihost_utils.broadcast_one_to_all(np.asarray(len(values), np.int32)))
    if count == 0:
        return []
    mine = np.zeros(count, np.int32)
    if jax.process_index() == 0:
        mine[:] = values
    return [int(value) for value in np.asarray(multihost_utils.broadcast_one_to_all(mine))]
