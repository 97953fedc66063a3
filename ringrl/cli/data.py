"""`ringrl data`: available and known data sets; with `data.name=...`, the contents of a set."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ringrl.cli.compose import as_plain
from ringrl.cli.console import format_return, output, progress_bar
from ringrl.cli.inventory import list_data
from ringrl.config import DataCommand
from ringrl.data import EpisodeStore, check_store, data_root, open_dataset, store_statistics
from ringrl.data.known_sets import COLLECTED, PUBLIC, known_names
from ringrl.errors import RingRLError
from ringrl.evaluation.data_figure import plot_episodes
from ringrl.evaluation.figures import save_png
from ringrl.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ringrl.data import Violation

ROWS = 12  # of a table; summary.json has all


def run(command: DataCommand, folder: Path) -> None:
    """List everything under the data cache; or describe one set, check its values and draw its returns."""
    if not command.data.name:
        return list_everything(folder)
    console = output()
    with progress_bar("reading") as advance:
        store = open_dataset(command.data, progress=advance)
    with progress_bar("measuring") as advance:
        statistics = store_statistics(store, progress=advance)
    save_png(returns_figure(store, command.data.name), folder / "returns.png")
    summary = {
        "name": command.data.name,
        "path": str(store.path),
        "data_fingerprint": store.fingerprint,
        "environment": store.metadata.get("environment"),
        **statistics,
        "config": as_plain(command),
    }
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    show(store, statistics)
    console.print(f"histograms and all numbers: {folder}")
    if command.check:
        with progress_bar("checking") as advance:
            violations = check_store(store, progress=advance)
        report_violations(violations, str(store.path))
        console.print("every value checked: no fault found")


def list_everything(folder: Path) -> None:
    """Print a table of the sets that are known by name, and one of all sets in the data cache."""
    console, rows = output(), list_data(data_root())
    summary = {"root": str(data_root()), "sets": rows, "known": known_names()}
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    show_known()
    if not rows:
        console.print(f"No data in {data_root()} yet: `ringrl collect` makes some, `ringrl import` brings some in.")
        return
    table = Table(box=None, pad_edge=False)
    for name, side in (("set", "left"), ("as", "left"), ("episodes", "right"), ("steps", "right"), ("MB", "right")):
        table.add_column(name, justify=side, overflow="fold")  # type: ignore[arg-type]
    table.add_column("environment", overflow="fold")
    for row in rows:
        numbers = [f"{row[key]:,}" if row.get(key) is not None else "" for key in ("episodes", "steps")]
        megabytes = f"{row['bytes'] / 1e6:,.1f}"
        table.add_row(row["name"], row["as"], *numbers, megabytes, row.get("environment") or row.get("fault") or "")
    console.print(table)
    console.print(f"in {data_root()}; look into one: ringrl data data.name=NAME, of a store data=store data.name=NAME")


def show_known() -> None:
    """Print the known sets, which need not be on this machine, and how to get them."""
    lists = {
        "Minari's public sets, each by data.name=NAME data.download=true": [(one.pattern, one.text) for one in PUBLIC],
        "sets that `ringrl collect collection=NAME` makes, each by data=NAME": list(COLLECTED.items()),
    }
    for title, rows in lists.items():
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        for row in rows:
            table.add_row(*row)
        output().print(f"{title}:")
        output().print(table)
        output().print()


def show(store: EpisodeStore, statistics: dict[str, Any]) -> None:
    """Print the main numbers of a set."""
    console = output()
    returns, lengths = statistics["returns"], statistics["lengths"]
    console.print(
        f"{store.path}\n"
        f"  {statistics['episodes']:,} episodes, {statistics['steps']:,} steps, {statistics['bytes'] / 1e6:,.1f} MB, "
        f"environment {store.metadata.get('environment', 'not named')}, "
        f"{100 * statistics['terminated_share']:.0f} % of episodes end by themselves\n"
        f"  returns  " + _quantiles(returns) + "\n  lengths  " + _quantiles(lengths)
    )
    _rows(("task", "episodes", "steps", "best return"), [
        (_numbered(task), f"{task['episodes']:,}", f"{task['steps']:,}", format_return(task["best_return"]))
        for task in statistics["tasks"]
    ])  # fmt: skip
    _rows(("policy", "episodes", "mean return"), [
        (policy["name"] or "unnamed", f"{policy['episodes']:,}", format_return(policy["mean_return"]))
        for policy in statistics["policies"]
    ])  # fmt: skip
    ranges = statistics["observations"]
    _rows(("observation", "from", "to", "mean", "deviation"), [
        (str(index), *(f"{ranges[key][index]:.3g}" for key in ("minimum", "maximum", "mean", "deviation")))
        for index in range(len(ranges["minimum"]))
    ])  # fmt: skip


def returns_figure(store: EpisodeStore, title: str) -> "Figure":
    """Plot histograms of returns and lengths, and the range of each observation."""
    return plot_episodes(store.returns, store.lengths, title=title)


def report_violations(violations: "Sequence[Violation]", where: str) -> None:
    """Print every violation and raise RingRLError if there is one."""
    for violation in violations:
        print(f"ringrl: {violation}", file=sys.stderr)
    if violations:
        raise RingRLError(f"{where}: {len(violations)} faults, listed above; repair the source and import it again.")


def _numbered(task: dict[str, Any]) -> str:
    """The task's number, as used by data.tasks, and its name if it has one."""
    number, name = str(task["task_id"]), str(task["name"])
    return number if name == number else f"{number} {name}"


def _quantiles(numbers: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:,.4g}" for name, value in numbers.items())


def _rows(names: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(names):
        table.add_column(name, justify="right" if index else "left")
    for row in rows[:ROWS]:
        table.add_row(*row)
    if len(rows) > ROWS:
        table.add_row(f"and {len(rows) - ROWS} more")
    output().print(table)
