"""The progress of training: a bar on a terminal, lines elsewhere, and lines in the run's log."""

import logging
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_SECONDS = 60.0  # maximum time between lines
PARTS = 10  # minimum number of lines

_logger = logging.getLogger(__name__)


class TrainingProgress:
    """Shows step, steps/s, tokens/s, loss and remaining time while entered; `enabled=False` shows nothing.

    Lines are printed every minute and at every tenth of the steps: on a console that is not a terminal, and always in
    the log.
    """

    def __init__(
        self,
        total: int,
        start: int = 0,
        *,
        enabled: bool = True,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._enabled = enabled
        self._console = console if console is not None else Console(stderr=True)
        self._line_every = max(total // PARTS, 1)
        self._clock, self._said_at = clock, clock()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if enabled and self._console.is_terminal:
            bar = Progress(
                TextColumn("train"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bar, self._task = bar, bar.add_task("train", total=total, completed=start, text="")

    def __enter__(self) -> "TrainingProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, loss: float, steps_per_second: float, tokens_per_second: float) -> None:
        """Show that `step` steps are complete."""
        text = f"{steps_per_second:.1f} steps/s, {tokens_per_second / 1e3:.1f}k tokens/s, loss {loss:.4f}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=text)
        now = self._clock()
        if step % self._line_every and step != self._total and now - self._said_at < LINE_SECONDS:
            return
        self._said_at = now
        left = (self._total - step) / max(steps_per_second, 1e-9)
        self.say(f"step {step}/{self._total}, {text}, {left:.0f} s left")

    def say(self, line: str) -> None:
        """Write a line to the log, and to a console without a bar."""
        if not self._enabled:
            return
        _logger.info(line)
        if self._bar is None:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
