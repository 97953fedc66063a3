"""Limit on the mapped pages of a store that its readers keep resident."""

import numpy as np

from ringrl.data.store import RESIDENT_BYTES, EpisodeStore

# Reading a page also maps its neighbors, in each of the four step columns: 64 KiB on Linux, and twice that as measured
# with large folios in the page cache (6.18).
JUMP_BYTES = 4 << 17


class PageBudget:
    """Releases mapped pages before more than `RESIDENT_BYTES` of a larger store are resident."""

    def __init__(self, store: EpisodeStore) -> None:
        self._store, self._total_bytes = store, store.step_bytes
        self._step_bytes = self._total_bytes // len(store.rewards)
        self._touched_bytes = 0

    def touch(self, steps: np.ndarray) -> None:
        """Record that the steps of the store with these indices were read, in this order."""
        if self._total_bytes > RESIDENT_BYTES and len(steps):
            apart = self._step_bytes * np.abs(np.diff(steps))
            self._add(JUMP_BYTES + int(np.minimum(apart, JUMP_BYTES).sum()))

    def touch_run(self, steps: int) -> None:
        """Record that this many consecutive steps were read."""
        if self._total_bytes > RESIDENT_BYTES:
            self._add(JUMP_BYTES + self._step_bytes * steps)

    def _add(self, touched: int) -> None:
        self._touched_bytes += touched
        if self._touched_bytes > RESIDENT_BYTES:
            self._store.release()
            self._touched_bytes = 0
