"""Conversion of exceptions to one line on standard error and an exit code; failures of a sweep's jobs."""

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ringrl.cli.preemption import REQUEUE as REQUEUE
from ringrl.config import COMMANDS
from ringrl.config.schema import key_paths, nearest
from ringrl.errors import ERROR_FILE, Preempted, RingRLError
from ringrl.parallel.ranks import is_main_process

_OF_PLACES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EEXIST)
SUCCESS, CRASH, USER_ERROR, INTERRUPTED = 0, 1, 2, 130  # and REQUEUE
_OF_LOST_PROCESSES = re.compile("gloo|nccl|connection|unavailable|deadline|heartbeat|coordination|barrier", re.I)

_Found = dict[Path, int]  # error files, with their modification times
_sweeps: list[tuple[Path, _Found]] = []  # of this process: each one's folder, with error files of earlier sweeps


class RecordSweepFolder(Callback):
    """Hydra callback that records a sweep's folder, because jobs may run in other processes or machines."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called once per sweep, in the process that launches it."""
        folder = Path(config.hydra.sweep.dir)
        _sweeps.append((folder, _error_files(folder)))


def forget_sweeps() -> None:
    """Forget the sweeps of earlier commands."""
    _sweeps.clear()


def sweep_failures() -> list[str]:
    """One line for each job of the launched sweeps that failed."""
    files = [file for folder, before in _sweeps for file in sorted(_error_files(folder).items() - before.items())]
    return [file.read_text().strip() for file, _ in files]


def _error_files(folder: Path) -> _Found:
    return {file: file.stat().st_mtime_ns for file in folder.rglob(ERROR_FILE)}


def guard(function: Callable[[], int], debug: bool) -> int:
    """Run `function` and return its exit code; a user error prints one line, anything else its traceback.

    One of several processes exits immediately when it fails, so that the others, which wait for it, notice.
    """
    code = _guard(function, debug)
    if code != SUCCESS and _is_one_of_several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # otherwise JAX would wait for the other processes
    return code


def _guard(function: Callable[[], int], debug: bool) -> int:
    try:
        return function()
    except KeyboardInterrupt as interrupt:
        print(f"ringrl: {str(interrupt) or 'interrupted.'}", file=sys.stderr)
        return INTERRUPTED
    except Preempted as preempted:
        if is_main_process():
            print(f"ringrl: preempted: {preempted} Exit code {REQUEUE} asks to be queued again.", file=sys.stderr)
        return REQUEUE
    except Exception as error:
        if _is_one_of_several() and _is_lost_process_error(error):
            if debug:
                traceback.print_exc()
            say(
                "another process of this run has ended or cannot be reached: see what it says. Start all of them again "
                f"by the same command, with resume=RUN or resume=auto (exit code {REQUEUE})."
            )
            return REQUEUE
        line = describe(error)
        if debug or line is None:
            traceback.print_exc()
        if line is None:
            say(f"internal error ({type(error).__name__}); please report it with the traceback above.")
            return CRASH
        say(line)
        return USER_ERROR


def _is_one_of_several() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def _is_lost_process_error(error: Exception) -> bool:
    from jax.errors import JaxRuntimeError

    return isinstance(error, JaxRuntimeError) and _OF_LOST_PROCESSES.search(str(error)) is not None


def say(line: str) -> None:
    """Print one line on standard error."""
    print(f"ringrl: error: {line}", file=sys.stderr)


def describe(error: BaseException) -> str | None:
    """One line for an error that the user can fix; None for a bug."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return f"The disk is full{where}: free some space and run the command again."
    if isinstance(error, OSError) and error.errno in _OF_PLACES and error.filename:
        return (
            f"{error.filename}: {(error.strerror or 'it cannot be written').lower()}. Run in a folder that you may "
            "write to, or name places: hydra.run.dir=FOLDER for a run's files, the variable RINGRL_DATA for data."
        )
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename}: there is no such file or folder, and it cannot be made; look at the path."
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _config_line(error)
    if isinstance(error, RingRLError):
        return " ".join(str(error).split())
    return None


def _config_line(error: BaseException) -> str:
    """Hydra's and OmegaConf's messages span lines and causes: keep the informative part, and the key."""
    parts: list[str] = []
    key = ""
    unknown = False
    cause: BaseException | None = error
    while cause is not None:
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        for line in lines:
            found = re.match(r"full_key: (\S+)", line)
            key = key or (found.group(1) if found else "")
        unknown = unknown or any(re.search(r"Key '.*' not in ", line) for line in lines)
        said = lines[:2] if lines and lines[0].endswith(":") else lines[:1]
        parts += [line.rstrip(":. ") for line in said if not any(line.rstrip(":. ") in part for part in parts)]
        cause = cause.__cause__
    if key and not any(key in part for part in parts):
        parts.append(f"key {key}")
    launcher = next(filter(None, (re.search(r"Could not find 'hydra/launcher/(\w+)'", part) for part in parts)), None)
    if launcher is not None:
        return _unknown_launcher(launcher.group(1))
    line = re.sub("^Error merging override (?=.+?: )", "", ": ".join(parts)) + "."
    if unknown and key and not key.startswith("hydra"):
        known = [path for command in COMMANDS.values() for path in key_paths(command)]
        line += f" For {key}: did you mean {nearest(key, known)[0]!r}?"
    return line


def _unknown_launcher(name: str) -> str:
    known = ("basic", "joblib", "submitit_local", "submitit_slurm")
    if name in known:
        return f"hydra/launcher={name} is not installed: pip install 'ringrl[sweep]'."
    return f"hydra/launcher={name}: did you mean {nearest(name, known)[0]!r}? Choices: {', '.join(known)}."
