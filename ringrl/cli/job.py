"""One job of a command: its configuration built and checked, its run folder, its failure put on record."""

import contextlib
import dataclasses
import importlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from ringrl.cli.compilation import use_compilation_cache
from ringrl.cli.compose import command_from, load_yaml
from ringrl.cli.console import output
from ringrl.cli.failures import ERROR_FILE, REQUEUE, describe
from ringrl.cli.gpus import claim_gpu
from ringrl.cli.overrides import AUTO, CONFIG_FILE, changes
from ringrl.config import COMMANDS
from ringrl.data import data_root
from ringrl.errors import Preempted

COMPILING = ("train", "eval", "collect")  # `bench` and `plan` are about the compiler itself


def run_job(command: str, config: DictConfig) -> Exception | None:
    """Run `command` in its folder; the error of a single run is returned.

    A sweep's job leaves its error in its folder instead, so that the other jobs go on and a job in another
    process or on another machine is heard of; a fault of the program's own is raised. Jobs side by side on one
    machine get a GPU each, and a preempted job of a sweep on SLURM is queued again.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        set_defaults_of_libraries()
        built = _build(command, config)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            claim_gpu(HydraConfig.get().launcher["_target_"], config.get("mesh"), output().print)
        module = importlib.import_module(module_of(command))
        if command in COMPILING:
            use_compilation_cache(data_root())
        module.run(built, folder)
    except Exception as error:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            return error
        if isinstance(error, Preempted) and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
            queue_again()
        line = describe(error)
        if line is None or config.debug:
            raise
        overrides = " ".join(HydraConfig.get().overrides.task)
        (folder / ERROR_FILE).write_text(f"{line} (job {overrides})\n")
    return None


def module_of(command: str) -> str:
    """The module whose `run` is the command; `import` is a word of Python's own."""
    return "ringrl.cli.import_data" if command == "import" else f"ringrl.cli.{command}"


def _build(command: str, config: DictConfig) -> Any:
    """The command's dataclass; of `train resume=RUN`, what the run was told, and the overrides on top of that."""
    resume = config.get("resume")
    if resume in (None, AUTO):
        return command_from(COMMANDS[command], config)
    told = load_yaml(COMMANDS[command], Path(resume) / CONFIG_FILE, changes(HydraConfig.get().overrides.task))
    return dataclasses.replace(told, resume=resume)


def set_defaults_of_libraries() -> None:
    """The one place that sets library switches; whatever the user has set stays."""
    os.environ.setdefault("MUJOCO_GL", "disable")  # no display; rendering asks for egl or osmesa
    os.environ.setdefault("IMAGEIO_FFMPEG_NO_PREVENT_SIGINT", "1")  # else it forks, which JAX's threads do not bear


def queue_again() -> None:
    """End this job of a sweep on SLURM so that it starts again: by submitit's own handler of its signal.

    Raises SystemExit: no result is left, so that the sweep goes on waiting for the job.
    """
    name = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
    with contextlib.suppress(subprocess.SubprocessError, OSError):  # SLURM may have queued it again by itself
        signal.raise_signal(signal.Signals[f"SIG{name}"])
    raise SystemExit(REQUEUE)
