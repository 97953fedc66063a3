"""`ringrl report`: one table with intervals and one figure of runs over seeds and agents."""

from pathlib import Path

from ringrl.cli.console import output, table_width
from ringrl.config import ReportCommand
from ringrl.errors import RingRLError
from ringrl.evaluation.report import find_runs, report_runs
from ringrl.evaluation.run_folders import LatestRuns, latest_runs, unfinished_line, unfinished_runs


def run(command: ReportCommand, folder: Path) -> None:
    """Gather the runs, print their table, and write table.md, table.csv and figure.png into `folder`."""
    console = output()
    named = Path("runs/train") / command.name
    if command.runs:
        unfinished = unfinished_runs([path for path in command.runs if Path(path).is_dir()])
        found, place = LatestRuns(find_runs(command.runs), 0, unfinished), None
    else:
        found, place = _of_name(named), named
    table = report_runs(
        found.runs,
        folder,
        normalized=command.normalized,
        bootstrap_samples=command.bootstrap_samples,
        width=table_width(console),
    )
    console.print(table, end="")
    if found.unfinished:
        console.print(unfinished_line(found.unfinished, place))
    if found.older:
        console.print(
            f"left out: {found.older} of {named} with the same agent, seed and label as a later one "
            f"(runs=[{named}] takes all)"
        )
    console.print(f"table and figure: {folder}")


def _of_name(folder: Path) -> LatestRuns:
    if not any(path.is_dir() for path in folder.glob("*")):
        raise RingRLError(f"No run in {folder}: give runs=[FOLDER,...], or the name that `ringrl train` was given.")
    return latest_runs(folder)
