"""Resuming a training run: decisions that all its processes make together, and messages about them."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ringrl.cli.console import table_width
from ringrl.cli.resuming import RecordedChange, accepted_changes, plain_changes, rate_change
from ringrl.cli.run_folder import resumes_run
from ringrl.config import ResumeChanges, TrainCommand
from ringrl.evaluation.report import runs_table
from ringrl.evaluation.summary import FILE_NAME, list_runs, load_summary
from ringrl.parallel.multiprocess import agree_on_text, in_process_0, is_main_process


def agree_on_resuming(command: TrainCommand, folder: Path) -> bool:
    """The result of `resumes_run` in process 0."""
    return agree_on_text("yes" if in_process_0("resume", lambda: resumes_run(command, folder)) else "no") == "yes"


def agree_on_changes(
    command: TrainCommand, metadata: Mapping[str, Any], saved: Mapping[str, Any], folder: Path, which: str
) -> list[RecordedChange]:
    """The result of `accepted_changes` in process 0, and no changes elsewhere; an error is raised in all processes."""
    return (
        in_process_0(f"changes of the {which} checkpoint", lambda: accepted_changes(command, metadata, saved, folder))
        or []
    )


def is_finished(
    command: TrainCommand, resumed: Mapping[str, Any], changes: Sequence[RecordedChange], folder: Path
) -> bool:
    """Whether a run is finished according to process 0: it has results, and its settings have not changed."""

    def finished() -> bool:
        if resumed["step"] != command.training.steps or resumed.get("evaluation") is None:
            return False
        if not (folder / FILE_NAME).exists():
            return False
        summary = load_summary(folder)  # of this end, or of an earlier one
        theirs = summary["train"].get("steps"), summary.get("config_changes", [])
        return theirs == (resumed["step"], plain_changes(changes))

    return agree_on_text("yes" if in_process_0("finished", finished) else "no") == "yes"


def show_finished(folder: Path, console: Console) -> None:
    """Print the results of a run that has nothing left to do."""
    if is_main_process():
        console.print(runs_table(list_runs(load_summary(folder)), width=table_width(console)), end="")
    console.print(f"finished already; run folder: {folder}")


def show_changes(
    command: TrainCommand, resumed: Mapping[str, Any], changes: Sequence[RecordedChange], console: Console
) -> None:
    """Print a line for each setting that changes from here on."""
    lines = [str(change) for change in changes if change.step == resumed["step"]]
    for line in [*lines, *(map(str, rate_change(command, resumed)) if lines else ())]:
        console.print(line)


def drop_launch_settings(command: TrainCommand) -> TrainCommand:
    """The command as a run folder stores it, without settings of how this process was started."""
    return dataclasses.replace(command, resume=None, overwrite=False, resume_changes=ResumeChanges.refuse)


def format_resume_command(folder: Path) -> str:
    """The shell command that resumes a run."""
    return f"ringrl train {shlex.quote(f'resume={folder}')}"
