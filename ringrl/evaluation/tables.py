"""Scores as tables: plain text for a terminal, Markdown, and CSV."""

import csv
import dataclasses
import io
import itertools
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ringrl.evaluation.differences import Difference
from ringrl.evaluation.scores import SHOWN, Estimate, Reference, Scores

LABEL_WIDTH, CELL_WIDTH = 11, 12  # of a text table's first column, and the minimum of the others
NOTE = (
    "95 % bootstrap intervals over environments and seeds; IQM: mean of the middle half of the environments' means; "
    "best is of each environment's own trials"
)
NO_INTERVAL = "a number without brackets rests on one environment and seed, which has no interval"
TITLES = ("First", "Last", "Mean", "IQM", "Best of n")
MOST_DECIMALS = 6  # numbers that need more are written with an exponent


class Row(Protocol):
    """One row of a table: a group of runs."""

    @property
    def environment(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def agent(self) -> str: ...
    @property
    def seeds(self) -> tuple[int, ...]: ...
    @property
    def environments(self) -> int: ...
    @property
    def scores(self) -> Scores: ...
    @property
    def normalized(self) -> bool: ...
    @property
    def reference(self) -> Reference | None: ...


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The difference between two groups of an environment."""

    environment: str
    ours: str
    theirs: str
    difference: Difference


def format_text(groups: Sequence[Row], comparisons: Sequence[Comparison] = (), *, width: int = 120) -> str:
    """Format a text table per environment, a column per group: trials, first, last, mean, IQM, best, differences.

    Groups that do not fit side by side get a second table; more than that, a row each without the trials.
    """
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    for environment, members in _by_environment(groups):
        console.print(Text(f"{environment}: {_scale(members)}"), soft_wrap=True)
        decimals = _decimals(members)
        cells = [len(_cell(e, decimals)) for group in members for e in _all(group.scores)]
        column = max([CELL_WIDTH, *cells, *(len(word) for group in members for word in group.label.split())]) + 2
        beside = max(1, (width - LABEL_WIDTH) // column)
        if len(members) <= 2 * beside:
            for start in range(0, len(members), beside):
                console.print(_table_of_trials(members[start : start + beside], decimals))
        else:
            console.print(_table_of_summaries(members, decimals))
            console.print(Text("Every trial is in table.md and table.csv."))
        if apart := _of(environment, comparisons):
            console.print(Text(f"Differences, {_pairing(apart)}:"), soft_wrap=True)
            console.print(_table_of_differences(apart, decimals))
    console.print(Text(f"{_note(groups)}."), soft_wrap=True)
    stream = console.file
    assert isinstance(stream, io.StringIO)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def format_markdown(groups: Sequence[Row], comparisons: Sequence[Comparison] = ()) -> str:
    """Format per environment, in Markdown, tables of first, last, mean, IQM and best, of differences, and of trials."""
    lines = []
    for environment, members in _by_environment(groups):
        decimals = _decimals(members)
        trials = max(len(group.scores.trials) for group in members)
        scale = _scale(members)
        lines += [f"## {environment}", "", f"{scale[0].upper()}{scale[1:]}. {_note(members)}.", ""]
        lines += _markdown_row(["Agent", "Seeds", "Environments", "Trials", *TITLES])
        lines += _markdown_row(["---"] + ["---:"] * (3 + len(TITLES)))
        for group in members:
            counts = [len(group.seeds), group.environments, len(group.scores.trials)]
            lines += _markdown_row([group.label, *counts, *(_cell(e, decimals) for e in _summaries(group.scores))])
        if apart := _of(environment, comparisons):
            lines += ["", f"Differences, {_pairing(apart)}:", ""]
            lines += _markdown_row(["", *TITLES])
            lines += _markdown_row(["---"] + ["---:"] * len(TITLES))
            for one in apart:
                lines += _markdown_row([_named(one), *(_cell(e, decimals) for e in _summaries(one.difference))])
        lines += ["", "Every trial:", ""]
        lines += _markdown_row(["Agent", *range(1, trials + 1)])
        lines += _markdown_row(["---"] + ["---:"] * trials)
        for group in members:
            cells = [_cell(e, decimals) for e in group.scores.trials]
            lines += _markdown_row([group.label, *cells, *[""] * (trials - len(cells))])
        lines.append("")
    return "\n".join(lines)


def format_csv(groups: Sequence[Row]) -> str:
    """Format one CSV line per group; every estimate in three columns: itself, `_low` and `_high`."""
    trials = max(len(group.scores.trials) for group in groups)
    names = [*SHOWN, *(f"trial_{k}" for k in range(1, trials + 1))]
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    numbers = [name + end for name in names for end in ("", "_low", "_high")]
    table.writerow(["environment", "label", "agent", "seeds", "environments", "trials", "normalized", *numbers])
    for group in groups:
        estimates = [*_summaries(group.scores), *group.scores.trials]
        values = [x for e in estimates for x in (e.value, e.low, e.high)]
        values = ["" if np.isnan(x) else x for x in values] + [""] * (3 * trials - 3 * len(group.scores.trials))
        seeds = " ".join(str(seed) for seed in group.seeds)
        head = [group.environment, group.label, group.agent, seeds, group.environments, len(group.scores.trials)]
        table.writerow([*head, str(group.normalized).lower(), *values])
    return stream.getvalue()


def _table_of_trials(groups: Sequence[Row], decimals: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("Trial")
    for group in groups:
        table.add_column(Text(f"{group.label}\n{_plural(len(group.seeds), 'seed')}"), justify="right")
    trials = max(len(group.scores.trials) for group in groups)
    for k in range(trials):
        cells = [_cell(g.scores.trials[k], decimals) if k < len(g.scores.trials) else "" for g in groups]
        table.add_row(str(k + 1), *map(Text, cells), end_section=k == trials - 1)
    counts = sorted({len(group.scores.trials) for group in groups})
    names = ["first", "last", "mean", "IQM", f"best of {counts[0]}" if len(counts) == 1 else "best of n"]
    for name, summary in zip(names, SHOWN, strict=True):
        table.add_row(name, *(Text(_cell(getattr(group.scores, summary), decimals)) for group in groups))
    return table


def _table_of_summaries(groups: Sequence[Row], decimals: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("Agent", overflow="fold")
    for name in ("Seeds", "Trials", *TITLES):
        table.add_column(name, justify="right")
    for group in groups:
        counts = (str(len(group.seeds)), str(len(group.scores.trials)))
        cells = (Text(_cell(estimate, decimals)) for estimate in _summaries(group.scores))
        table.add_row(Text(group.label), *counts, *cells)
    return table


def _table_of_differences(apart: Sequence[Comparison], decimals: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("", overflow="fold")
    for name in TITLES:
        table.add_column(name, justify="right")
    for one in apart:
        table.add_row(Text(_named(one)), *(Text(_cell(e, decimals)) for e in _summaries(one.difference)))
    return table


def _of(environment: str, comparisons: Sequence[Comparison]) -> list[Comparison]:
    return [one for one in comparisons if one.environment == environment]


def _named(one: Comparison) -> str:
    return f"{one.ours} - {one.theirs}"


def _pairing(apart: Sequence[Comparison]) -> str:
    """Describe what the intervals of differences are paired over."""
    found = {(one.difference.tasks, one.difference.seeds) for one in apart}
    if len(found) > 1:
        return "paired over the tasks and seeds that both have"
    tasks, seeds = found.pop()
    shared = [_plural(tasks, "common task")] * (tasks > 0) + [_plural(seeds, "common seed")] * (seeds > 0)
    return f"paired over {' and '.join(shared)}" if shared else "of runs with no common tasks or seeds"


def _note(groups: Sequence[Row]) -> str:
    alone = any(not e.has_interval and not np.isnan(e.value) for group in groups for e in _all(group.scores))
    return f"{NOTE}; {NO_INTERVAL}" if alone else NOTE


def _by_environment(groups: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    return [(name, list(members)) for name, members in itertools.groupby(groups, key=lambda group: group.environment)]


def _scale(groups: Sequence[Row]) -> str:
    if not groups[0].normalized:
        return "return"
    reference = groups[0].reference
    return "normalized return" if reference is None else f"normalized return: {reference.in_words}"


def _summaries(scores: Scores | Difference) -> list[Estimate]:
    return [getattr(scores, name) for name in SHOWN]


def _all(scores: Scores) -> list[Estimate]:
    return [*scores.trials, *_summaries(scores)]


def _decimals(groups: Sequence[Row]) -> int:
    """Enough decimals to distinguish numbers of this size, whatever their unit."""
    numbers = [abs(x) for group in groups for e in _all(group.scores) for x in (e.value, e.low, e.high)]
    largest = np.nanmax(numbers)
    if 0 < largest < 0.1:
        return 1 - math.floor(math.log10(largest))
    return 2 if largest < 10 else 1 if largest < 1000 else 0


def _number(value: float, decimals: int) -> str:
    if decimals > MOST_DECIMALS:
        return f"{value:.1e}"
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def _cell(estimate: Estimate, decimals: int) -> str:
    if np.isnan(estimate.value):
        return "-"
    value, low, high = (_number(x, decimals) for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]" if estimate.has_interval else value


def _markdown_row(cells: Sequence[object]) -> list[str]:
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"]


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"
