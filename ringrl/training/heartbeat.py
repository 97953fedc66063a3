"""A progress line per minute for long-running work, whether or not it has advanced."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

EVERY_SECONDS = 60.0


class Heartbeat:
    """Context manager that reports progress once a minute, and completion if it has reported anything before.

    Args:
        label: The unit that is counted, such as `episodes`, or the activity.
        say: Called with each line.
        every: Seconds between lines.
        clock: Returns seconds since a fixed moment.
    """

    def __init__(
        self,
        label: str,
        *,
        say: Callable[[str], None],
        every: float = EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._say, self._every, self._clock = label, say, every, clock
        self._done, self._total = 0, 0
        self._began = self._began_counting = clock()
        self._first = 0
        self._said = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat of {label}", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._began = self._clock()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._said and error is None:
            done = f"{self._done:,} done" if self._total else "done"
            self._say(f"{self._label}: {done} in {format_duration(self._clock() - self._began)}")

    def advance(self, done: int, total: int) -> None:
        """Record that `done` of `total` units are complete."""
        if not self._total:
            self._first, self._began_counting = done, self._clock()
        self._done, self._total = done, total

    def line(self) -> str:
        """Progress, rate, and the remaining time at that rate."""
        now = self._clock()
        if not self._total:
            return f"{self._label}: at work for {format_duration(now - self._began)}"
        counted = self._done - self._first
        rate = counted / max(now - self._began_counting, 1e-9)
        head = f"{self._label}: {self._done:,}/{self._total:,}"
        if not counted:
            return f"{head} after {format_duration(now - self._began)}"
        left = format_duration((self._total - self._done) / rate)
        return f"{head}, {format_rate(rate)}, {left} left"

    def _beat(self) -> None:
        while not self._ended.wait(self._every):
            self._said = True
            self._say(self.line())


def format_duration(seconds: float) -> str:
    """Format seconds as `42 s`, `3 min 20 s` or `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def format_rate(rate: float) -> str:
    """Format a rate as `12.3/s`, or `2.5/min` for a low one."""
    return f"{rate:.3g}/s" if rate >= 1 else f"{60 * rate:.3g}/min"
