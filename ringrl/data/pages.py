"""How many mapped pages of a store its readers keep resident."""

import numpy as np

from ringrl.data.store import RESIDENT_BYTES, EpisodeStore

# Reading a page maps its neighbors too, in each of the four step columns: 64 KiB on Linux, and twice that as measured
# where its page cache has large folios (6.18).
JUMP_BYTES = 4 << 17


class PageBudget:
    """Gives mapped pages back before more than `RESIDENT_BYTES` of a larger store are resident."""

    def __init__(self, store: EpisodeStore) -> None:
        self._store, self._total_bytes = store, store.step_bytes
        self._step_bytes = self._total_bytes // len(store.rewards)
        self._touched_bytes = 0

    def touch(self, steps: np.ndarray) -> None:
        """The steps of the store with these indices were read, in this order."""
        if self._total_bytes > RESIDENT_BYTES and len(steps):
            apart = self._step_bytes * np.abs(np.diff(steps))
            self._add(JUMP_BYTES + int(np.minimum(apart, JUMP_BYTES).sum()))

    def touch_run(self, steps: int) -> None:
        """That many steps in a row were read."""
        if self._total_bytes > RESIDENT_BYTES:
            self._add(JUMP_BYTES + self._step_bytes * steps)

    def _add(self, touched: int) -> None:
        self._touched_bytes += touched
        if self._touched_bytes > RESIDENT_BYTES:
            self._store.release()
            self._touched_bytes = 0
