"""Background loading of batches by a grain pipeline in which batch k depends on (seed, k) alone."""

import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from ringrl.data.chains import ChainSampler
from ringrl.types import Chain

Batch = TypeVar("Batch", Chain, list[Chain])


class Loader(Iterator[Batch], Generic[Batch]):
    """Iterates over `prepare(k)` for k = start, start + 1, ... stop - 1; close it, or use it in a `with`.

    The first batch is prepared when it is requested, and the threads start with the second: importing grain takes as
    long as a step may, and a consumer that has the first batch can overlap that time.

    `wait_seconds` is the time the consumer has spent waiting for batches, `next_index` the index of the next batch.
    """

    def __init__(
        self,
        prepare: Callable[[int], Batch],
        *,
        start: int = 0,
        stop: int | None = None,
        threads: int = 1,
        prefetch: int = 4,
    ) -> None:
        self._prepare, self._start, self._stop = prepare, start, stop
        self._threads, self._prefetch = threads, prefetch
        self._iterator: Any = None
        self.next_index = start
        self.wait_seconds = 0.0

    def __next__(self) -> Batch:
        began = time.perf_counter()
        if self._iterator is None and self.next_index == self._start and self._start != self._stop:
            batch = self._prepare(self._start)
        else:
            batch = next(self._in_background())
        self.wait_seconds += time.perf_counter() - began
        self.next_index += 1
        return batch

    def _in_background(self) -> Iterator[Batch]:
        if self._iterator is None:
            import grain  # a slow import, needed only here

            # No more than 2**62: grain counts in int64.
            stop = min(sys.maxsize // 2, self._stop) if self._stop is not None else sys.maxsize // 2
            batches = grain.MapDataset.range(min(self._start + 1, stop), stop).map(self._prepare)
            prefetch = max(self._prefetch, self._threads) if self._threads else 0
            options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=prefetch)
            self._iterator = iter(batches.to_iter_dataset(options))
        return self._iterator

    def close(self) -> None:
        """Stop the threads; the loader is exhausted afterwards."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator = iter(())

    def __enter__(self) -> "Loader[Batch]":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def make_loader(
    sampler: ChainSampler,
    *,
    seed: int = 0,
    batch_size: int = 32,
    start: int = 0,
    stop: int | None = None,
    threads: int = 1,
    prefetch: int = 4,
) -> Loader[Chain]:
    """Create a loader that prepares batches of chains in the background; batch k is a pure function of (seed, k).

    Args:
        sampler: samples the chains.
        seed: seed of the stream.
        batch_size: B, chains in a batch.
        start: the first batch.
        stop: the index after the last batch; by default the stream is infinite.
        threads: number of threads that prepare batches ahead; 0 prepares each when it is requested.
        prefetch: number of batches that the threads keep ready.

    Returns:
        An iterator over chains (B, P, ...) of numpy arrays; close it, or use it in a `with`.
    """

    def prepare(index: int) -> Chain:
        return sampler.batch(seed, index, batch_size)

    return Loader(prepare, start=start, stop=stop, threads=threads, prefetch=prefetch)
