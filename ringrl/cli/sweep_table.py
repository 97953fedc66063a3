"""The table of a sweep, printed after all of its jobs have ended."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

AGENT_COMMANDS = ("train", "eval")  # commands whose jobs write the summary of an evaluation


class SweepTable(Callback):
    """Hydra callback that prints the table of `ringrl report` for a sweep, and writes its files."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Called once per sweep, in the process that launched it, whichever processes ran the jobs."""
        if config.hydra.job.name in AGENT_COMMANDS:
            report_sweep(Path(config.hydra.sweep.dir))


def report_sweep(folder: Path) -> None:
    """Print the table, save the figure, and report unfinished jobs; if none finished, only the latter."""
    from ringrl.cli.console import output, table_width
    from ringrl.errors import RingRLError
    from ringrl.evaluation.report import find_runs, report_runs
    from ringrl.evaluation.run_folders import unfinished_line, unfinished_runs

    console = output(logged=False)  # outside jobs there is no log, and Hydra would print it again
    try:
        unfinished = unfinished_runs([folder])
        if any(folder.glob("*/summary.json")):
            console.print(report_runs(find_runs([folder]), folder, width=table_width(console)), end="")
    except RingRLError as error:
        console.print(f"no table of this sweep: {error}")
        return
    if unfinished:
        console.print(unfinished_line(unfinished, folder))
    console.print(f"sweep folder: {folder.absolute()}")
