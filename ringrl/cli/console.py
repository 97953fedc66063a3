"""What commands print: progress while they work, and scores when they are done."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

SHOWN_TRIALS = (1, 2, 4, 8, 16, 32, 64, 128)


def output() -> Console:
    """Standard output; made anew, for it may have been redirected."""
    return Console(highlight=False, soft_wrap=True, markup=False)


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yields `advance(done, total)`; a bar on standard error where that is a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def print_scores(summary: Mapping[str, Any], title: str) -> None:
    """One evaluation: return by trial, first, last, mean and best-of-n, each with its 95 % interval."""
    trials = len(summary["trial_returns"])
    table = Table(
        title=title, title_justify="left", caption=f"{_scale(summary)}; 95 % intervals", caption_justify="left"
    )
    table.add_column("")
    rows: list[tuple[str, Mapping[str, Any] | None]] = []
    for trial in [t for t in SHOWN_TRIALS if t < trials] + [trials]:
        low, high = summary["trial_intervals"][trial - 1]
        rows.append((f"trial {trial}", {"value": summary["trial_returns"][trial - 1], "low": low, "high": high}))
    names = {"first": "first", "last": "last", "mean": "mean", "best": f"best of {trials}"}
    rows += [(text, summary[name]) for name, text in names.items()]
    table.add_column("return", justify="right")
    table.add_column("interval", justify="right")
    normalized = summary.get("normalized")
    if normalized is not None:
        table.add_column("normalised", justify="right")
    for label, numbers in rows:
        cells = [label, *_cells(numbers)]
        if normalized is not None:
            name = next((key for key, text in names.items() if text == label), None)
            cells.append(_cells(normalized[name])[0] if name else "")
        table.add_row(*cells)
    output().print(table)


def _cells(numbers: Mapping[str, Any] | None) -> tuple[str, str]:
    if numbers is None or numbers["value"] is None:
        return "-", ""
    return f"{numbers['value']:.2f}", f"{numbers['low']:.2f} to {numbers['high']:.2f}"


def _scale(summary: Mapping[str, Any]) -> str:
    references = summary.get("references")
    if references is None:
        return f"{summary['environment']}"
    return f"{summary['environment']}; normalised: {references['minimum']:.2f} is 0, {references['maximum']:.2f} is 100"
