"""What commands print while they work."""

import contextlib
import os
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ringrl.parallel.ranks import is_main_process

UNBOUNDED = 10_000  # columns


def output() -> Console:
    """Standard output, of process 0 alone; made anew, for it may have been redirected."""
    console = Console(quiet=not is_main_process(), highlight=False, soft_wrap=True, markup=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNBOUNDED  # what reads a file or a pipe wants whole names, not a terminal's 80 columns
    return console


def table_width(console: Console) -> int:
    """Columns for a table: the terminal's, or 120 where the output goes to a file."""
    return console.width if console.is_terminal else 120


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yields `advance(done, total)`; a bar on standard error where that is a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal or not is_main_process():
        yield lambda done, total: None
        return
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
