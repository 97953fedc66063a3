"""A parallel map over processes: results in order, bounded memory, and no leftover processes."""

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from ringrl.errors import RingRLError

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 2  # items a worker has at a time, so that it never waits for the next
_WINDOW = 4  # results per worker that may be in progress or queued
_GRACE_SECONDS = 5.0


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """Yield `function(item)` of each item, in order; with one worker in this process, else in spawned ones.

    At most four results per worker are held. `function` is pickled once for each worker and keeps its state there. An
    exception in a worker is raised here; a worker that dies (killed, out of memory) raises `RingRLError`. Close the
    iterator (or exhaust it) to stop the workers; they exit by themselves if this process is killed.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    with _started(function, workers) as processes:
        yield from _in_order(processes, iter(enumerate(items)))


@contextlib.contextmanager
def _started(function: Callable, workers: int) -> Iterator[dict[Connection, BaseProcess]]:
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of JAX's threads
    processes: dict[Connection, BaseProcess] = {}
    try:
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(function, theirs), daemon=True)
            with _ignore_interrupts():  # inherited: this process handles Ctrl-C
                process.start()
            theirs.close()  # the worker is the only holder, so its death closes the pipe
            processes[ours] = process
        yield processes
    finally:
        for connection, process in processes.items():
            process.terminate()
            connection.close()
        for process in processes.values():
            process.join(_GRACE_SECONDS)


@contextlib.contextmanager
def _ignore_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _in_order(processes: dict[Connection, BaseProcess], items: Iterator[tuple[int, Any]]) -> Iterator[Any]:
    results: dict[int, Any] = {}
    given = dict.fromkeys(processes, 0)
    submitted = returned = 0
    exhausted = False
    while True:
        for _ in range(_AHEAD):
            for connection in given:
                if exhausted or given[connection] == _AHEAD or submitted - returned == _WINDOW * len(processes):
                    continue
                item = next(items, None)
                if item is None:
                    exhausted = True
                    continue
                try:
                    connection.send(item)
                except OSError as error:
                    raise _died(processes[connection]) from error
                given[connection] += 1
                submitted += 1
        if returned in results:
            yield results.pop(returned)
            returned += 1
        elif exhausted and returned == submitted:
            return
        else:
            for connection in wait([connection for connection, count in given.items() if count]):
                assert isinstance(connection, Connection)
                index, result, error = _receive(connection, processes[connection])
                if error is not None:
                    raise error
                results[index] = result
                given[connection] -= 1


def _receive(connection: Connection, process: BaseProcess) -> tuple[int, Any, Exception | None]:
    try:
        return connection.recv()
    except (EOFError, OSError) as error:
        raise _died(process) from error


def _died(process: BaseProcess) -> RingRLError:
    process.join(_GRACE_SECONDS)
    return RingRLError(
        f"a worker process died (exit code {process.exitcode}), perhaps for want of memory; "
        "do it again with fewer workers: workers=1 uses none."
    )


def _work(function: Callable[[Any], Any], connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal interrupts every process: the parent decides
    # Reading ends with EOFError, and writing with OSError, when the parent process has died.
    with contextlib.suppress(EOFError, OSError):
        while True:
            index, item = connection.recv()
            try:
                answer = (index, function(item), None)
            except Exception as error:  # raised again in the parent
                answer = (index, None, error)
            connection.send(answer)
