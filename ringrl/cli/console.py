"""Output of commands while they run, on the screen and in the log of their run folder.

Lines of a sweep's jobs that may run side by side begin with the job's name.
"""

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ringrl.parallel.ranks import is_main_process
from ringrl.training.heartbeat import Heartbeat

_logger = logging.getLogger(__name__)
_STYLES = re.compile(r"\x1b\[[0-9;]*m")
UNBOUNDED = 10_000  # columns
_ONE_AFTER_ANOTHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # runs one job at a time


def output(width: int | None = None, *, logged: bool = True) -> Console:
    """Standard output of process 0 alone, also written to the run's log; created anew because it may be redirected."""
    stream: Any = _Lines(sys.stdout, job_prefix(), logged=logged and not _launches())
    console = Console(
        file=stream, width=width, quiet=not is_main_process(), highlight=False, soft_wrap=True, markup=False
    )
    if width is None and not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNBOUNDED  # readers of a file or a pipe need whole names, not a terminal's 80 columns
    return console


def progress_output() -> Console:
    """Standard error, for progress; not treated as a terminal for jobs that may run side by side."""
    prefix = job_prefix()
    if not prefix:
        return Console(stderr=True)
    stream: Any = _Lines(sys.stderr, prefix)
    return Console(file=stream, force_terminal=False)


def format_return(value: float) -> str:
    """Format a return with two decimals, or with three digits if it is so small that these would not show it."""
    return f"{value:.3g}" if 0 < abs(value) < 0.1 else f"{value:.2f}"


def table_width(console: Console) -> int:
    """Columns for a table: the terminal's, or 120 if the output goes to a file."""
    return console.width - len(job_prefix()) if console.is_terminal else 120


def job_prefix() -> str:
    """The prefix of the lines of a sweep's job: its folder's name if jobs may run side by side, else empty."""
    if not HydraConfig.initialized() or _launches():
        return ""
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return ""
    return "" if hydra.launcher["_target_"] == _ONE_AFTER_ANOTHER else f"[{Path(hydra.runtime.output_dir).name}] "


def _launches() -> bool:
    """Whether this process launches a sweep without running its jobs: it has no log, and Hydra's is shown on screen."""
    if not HydraConfig.initialized():
        return False
    hydra = HydraConfig.get()
    return hydra.mode == RunMode.MULTIRUN and OmegaConf.is_missing(hydra.job, "num")


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yields `advance(done, total)`; a bar on standard error if that is a terminal, else a line per minute."""
    console = progress_output()
    if not is_main_process():
        yield lambda done, total: None
        return
    if not console.is_terminal:
        with Heartbeat(label, say=lambda line: say_progress(line, console)) as beat:
            yield beat.advance
        return
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    with (
        Heartbeat(label, say=_logger.info) as beat,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        task = progress.add_task(label, total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)
            beat.advance(done, total)

        yield advance


def say_progress(line: str, console: Console) -> None:
    """Print a progress line on standard error and in the log."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)
    _logger.info(line)


class _Lines(io.TextIOBase):
    """A stream of whole lines, each with a prefix; optionally logs the text, without styles."""

    def __init__(self, stream: TextIO, prefix: str, *, logged: bool = False) -> None:
        self._stream, self._prefix, self._logged = stream, prefix, logged

    def write(self, text: str) -> int:
        """Write immediately, so that lines of several jobs do not mix."""
        lines = text.splitlines(keepends=True)
        self._stream.write("".join(f"{self._prefix}{line}" for line in lines))
        plain = _STYLES.sub("", text).rstrip()
        if self._logged and plain:
            _logger.info(plain if len(lines) == 1 else f"\n{plain}")
        return len(text)

    def flush(self) -> None:
        """Flush the underlying stream."""
        self._stream.flush()

    def close(self) -> None:
        """No effect: the stream has another owner, and may be closed before this is collected."""

    def isatty(self) -> bool:
        """Whether the underlying stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """File descriptor of the underlying stream."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the underlying stream."""
        return self._stream.encoding or "utf-8"
