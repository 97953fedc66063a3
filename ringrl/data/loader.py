"""Batches in the background: a grain pipeline in which batch k depends on (seed, k) alone."""

import sys
import time
from collections.abc import Iterator
from types import TracebackType

import numpy as np

from ringrl.data.chains import ChainSampler
from ringrl.data.deal import deal_chain
from ringrl.types import Chain


class Loader(Iterator[Chain]):
    """Iterates over batches start, start + 1, ... stop - 1 of the stream `seed`; close it, or use it in a `with`.

    `wait_seconds` is the time the consumer has spent waiting for batches, `next_index` the batch that comes next.
    """

    def __init__(
        self,
        sampler: ChainSampler,
        *,
        seed: int,
        batch_size: int,
        start: int = 0,
        stop: int | None = None,
        threads: int = 1,
        prefetch: int = 4,
        order: np.ndarray | None = None,
    ) -> None:
        import grain  # heavy, and needed only here

        # Not past 2**62: grain counts in int64.
        indices = grain.MapDataset.range(start, min(sys.maxsize // 2, stop) if stop is not None else sys.maxsize // 2)

        def prepare(index: int) -> Chain:
            batch = sampler.batch(seed, index, batch_size)
            return batch if order is None else deal_chain(batch, order)

        batches = indices.map(prepare)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, threads) if threads else 0)
        self._iterator = iter(batches.to_iter_dataset(options))
        self.next_index = start
        self.wait_seconds = 0.0

    def __next__(self) -> Chain:
        began = time.perf_counter()
        batch = next(self._iterator)
        self.wait_seconds += time.perf_counter() - began
        self.next_index += 1
        return batch

    def close(self) -> None:
        """Stop the threads; the loader is exhausted afterwards."""
        self._iterator.close()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def make_loader(
    sampler: ChainSampler,
    *,
    seed: int,
    batch_size: int,
    start: int = 0,
    stop: int | None = None,
    threads: int = 1,
    prefetch: int = 4,
    order: np.ndarray | None = None,
) -> Loader:
    """Batches k = start .. stop - 1 (for ever without `stop`): the same stream whatever the start.

    `threads` = 0 prepares each batch when it is asked for; else that many threads keep `prefetch` batches ready.
    `order` deals the steps of every chain to devices (`deal_chain`).
    """
    return Loader(
        sampler,
        seed=seed,
        batch_size=batch_size,
        start=start,
        stop=stop,
        threads=threads,
        prefetch=prefetch,
        order=order,
    )
