"""Exclusive access to a run folder: one command at a time, and a training run is replaced only on request."""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ringrl.cli.console import output
from ringrl.cli.overrides import AUTO, CONFIG_FILE
from ringrl.cli.resuming import CHANGES_FILE
from ringrl.cli.run_lock import last_command, run_lock
from ringrl.config import TrainCommand
from ringrl.errors import ERROR_FILE, RingRLError
from ringrl.evaluation.summary import FILE_NAME
from ringrl.training.checkpoint_folder import CheckpointFolder
from ringrl.training.run_history import EVALUATIONS_FILE, LOSSES_FILE

CHECKPOINTS = "checkpoints"
RESULTS = (FILE_NAME, "plan.json", "table.md", "actors")  # results of commands, which a folder would lose
# Files of a training run besides its checkpoints and TensorBoard's events.
_FILES = (
    *(FILE_NAME, CONFIG_FILE, CHANGES_FILE, LOSSES_FILE, EVALUATIONS_FILE, ERROR_FILE),
    *("trials.csv", "trials.png", "curves.png", "video.mp4"),
)


@contextlib.contextmanager
def hold_folder(folder: Path, command: str) -> Iterator[None]:
    """Context that holds a run folder for a command; a collective.

    Raises RingRLError, in all processes, if another command is using the folder, or if it has results of another
    command, which this one would replace.
    """

    def hold() -> None:
        if other := other_command(folder, command):
            raise RingRLError(
                f"{folder} has results of `ringrl {other}`, which `ringrl {command}` would replace: choose another "
                "folder by hydra.run.dir=FOLDER."
            )
        holding.enter_context(run_lock(folder, command, output().print))

    with contextlib.ExitStack() as holding:
        _in_process_0("run folder", hold)
        yield


def other_command(folder: Path, command: str) -> str | None:
    """Another command that has left results in a folder, if any."""
    if contains_run(folder):
        return None if command == "train" else "train"
    last = last_command(folder) if any((folder / name).exists() for name in RESULTS) else None
    return last if last != command else None


def contains_run(folder: Path) -> bool:
    """Whether a folder contains a training run worth keeping: a checkpoint, or results."""
    has_results = (folder / CONFIG_FILE).exists() and (folder / FILE_NAME).exists()
    return has_results or bool(CheckpointFolder(folder / CHECKPOINTS).steps())


def resumes_run(command: TrainCommand, folder: Path) -> bool:
    """Whether `ringrl train` resumes the run in a folder, rather than beginning one there.

    Raises RingRLError if it would replace another run without `overwrite`.
    """
    resume = AUTO if command.resume is None and was_requeued(os.environ) else command.resume
    if resume is not None and (resume != AUTO or CheckpointFolder(folder / CHECKPOINTS).steps()):
        return True
    if not command.overwrite and (contains_run(folder) or (folder / FILE_NAME).exists()):
        raise RingRLError(
            f"{folder} has a run already: give resume=auto to go on with it, overwrite=true to put this one in its "
            "place, or another folder (hydra.run.dir=FOLDER, or hydra.sweep.dir=FOLDER of a sweep)."
        )
    return False


def was_requeued(environment: Mapping[str, str]) -> bool:
    """Whether SLURM has started this job before, so that the contents of its folder are its own."""
    count = environment.get("SLURM_RESTART_COUNT", "")
    return count.isdigit() and int(count) > 0


def remove_run(folder: Path) -> None:
    """Remove the files of a training run from a folder; other files stay."""
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    for events in folder.rglob("*.tfevents.*"):
        events.unlink(missing_ok=True)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def _in_process_0(what: str, act: Callable[[], None]) -> None:
    """`ringrl.parallel.multiprocess.in_process_0`, not imported in a process without JAX, which is the only one."""
    if "jax" not in sys.modules:
        return act()
    from ringrl.parallel.multiprocess import in_process_0

    in_process_0(what, act)
