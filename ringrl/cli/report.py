"""`ringrl report`: runs over seeds and agents in one table with intervals and one figure."""

from pathlib import Path

from ringrl.cli.console import output, table_width
from ringrl.config import ReportCommand
from ringrl.errors import RingRLError
from ringrl.evaluation.report import write_report


def run(command: ReportCommand, folder: Path) -> None:
    """Gather the runs, print their table, and write table.md, table.csv and figure.png into `folder`."""
    console = output()
    paths = command.runs or [str(latest(Path("runs/train") / command.name))]
    table = write_report(
        paths,
        folder,
        normalized=command.normalized,
        bootstrap_samples=command.bootstrap_samples,
        width=table_width(console),
    )
    console.print(table, end="")
    console.print(f"table and figure: {folder}")


def latest(runs: Path) -> Path:
    """The newest run, or sweep of runs, under a name; the folders are named by date and time."""
    folders = sorted(folder for folder in runs.glob("*") if folder.is_dir())
    if not folders:
        raise RingRLError(f"No run in {runs}: give runs=[FOLDER,...], or the name that `ringrl train` was given.")
    return folders[-1]
