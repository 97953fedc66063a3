"""One job of a command: its configuration is built and checked, its run folder created, its failure recorded."""

import contextlib
import dataclasses
import importlib
import logging
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import ringrl
from ringrl.cli.compilation import use_compilation_cache
from ringrl.cli.compose import build_command, load_yaml
from ringrl.cli.console import output
from ringrl.cli.failures import REQUEUE, describe
from ringrl.cli.gpus import claim_gpu
from ringrl.cli.overrides import AUTO, CONFIG_FILE, changes
from ringrl.cli.run_folder import hold_folder
from ringrl.config import COMMANDS
from ringrl.data import data_root
from ringrl.errors import ERROR_FILE, Preempted
from ringrl.ops.notes import forget_notes
from ringrl.training.heartbeat import format_duration

_logger = logging.getLogger(__name__)

HOLD_THEIR_FOLDER = ("train", "eval")  # may be several processes, which must connect to each other first
RECORD = ".hydra"  # Hydra's record in a run folder

COMPILING = ("train", "eval", "collect")  # `bench` and `plan` measure the compiler itself


def run_job(command: str, config: DictConfig, keeps_record: bool = False) -> Exception | None:
    """Run `command` in its folder; the error of a single run is returned.

    A sweep's job writes its error to its folder instead, so that the other jobs continue and errors in other processes
    or on other machines are found; a bug is raised. Parallel jobs on one machine get a GPU each, and a preempted job of
    a sweep on SLURM is requeued. With `keeps_record` the folder gets Hydra's record of the first command that may write
    there, and of one that replaces it.
    """
    folder, began = Path(HydraConfig.get().runtime.output_dir), time.perf_counter()
    _logger.info("ringrl %s: %s %s", ringrl.__version__, command, " ".join(HydraConfig.get().overrides.task))
    forget_notes()
    try:
        set_defaults_of_libraries()
        built = _build(command, config)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            claim_gpu(HydraConfig.get().launcher["_target_"], config.get("mesh"), output().print)
            (folder / ERROR_FILE).unlink(missing_ok=True)  # of an earlier attempt
        run = importlib.import_module(find_module(command)).run
        if command in COMPILING:
            use_compilation_cache(data_root())
        with contextlib.nullcontext() if command in HOLD_THEIR_FOLDER else hold_folder(folder, command):
            if keeps_record and not (folder / RECORD).exists():
                _write_record(config, folder / RECORD)
            run(built, folder)
        if keeps_record and getattr(built, "overwrite", False):
            _write_record(config, folder / RECORD)
        _logger.info("ended after %s", format_duration(time.perf_counter() - began))
    except BaseException as error:
        _log_failure(error)
        if not isinstance(error, Exception):
            raise
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            return error
        if isinstance(error, Preempted) and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
            requeue()
        line = describe(error)
        if line is None or config.debug:
            raise
        overrides = " ".join(HydraConfig.get().overrides.task)
        (folder / ERROR_FILE).write_text(f"{line} (job {overrides})\n")
    return None


def _write_record(config: DictConfig, folder: Path) -> None:
    """Write the files that Hydra itself would write: the configuration, Hydra's own, and the overrides."""
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "config.yaml", resolve=True)
    OmegaConf.save(OmegaConf.create({"hydra": HydraConfig.get()}), folder / "hydra.yaml")
    OmegaConf.save(HydraConfig.get().overrides.task, folder / "overrides.yaml")


def _log_failure(error: BaseException) -> None:
    """Write the failure to the run's log alone, if there is one; `ringrl.cli.failures` shows it on the screen."""
    if not logging.getLogger().handlers:
        return
    line = describe(error) or str(error) or type(error).__name__
    of_the_program = isinstance(error, Exception) and describe(error) is None
    _logger.error("%s", line, exc_info=error if of_the_program else None)


def find_module(command: str) -> str:
    """The module whose `run` is the command; `import` is a Python keyword."""
    return "ringrl.cli.import_data" if command == "import" else f"ringrl.cli.{command}"


def _build(command: str, config: DictConfig) -> Any:
    """Build the command's dataclass; for `train resume=RUN`, from the run's settings and the overrides."""
    resume = config.get("resume")
    if resume in (None, AUTO):
        return build_command(COMMANDS[command], config)
    told = load_yaml(COMMANDS[command], Path(resume) / CONFIG_FILE, changes(HydraConfig.get().overrides.task))
    return dataclasses.replace(told, resume=resume)


def set_defaults_of_libraries() -> None:
    """Set defaults of libraries' environment variables, in this one place; settings of the user take precedence."""
    os.environ.setdefault("MUJOCO_GL", "disable")  # no display; rendering requires egl or osmesa
    os.environ.setdefault("IMAGEIO_FFMPEG_NO_PREVENT_SIGINT", "1")  # otherwise it forks, unsafe with JAX's threads


def requeue() -> None:
    """Requeue this job of a sweep on SLURM, by submitit's own signal handler.

    Raises SystemExit: no result is written, so that the sweep continues to wait for the job.
    """
    name = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
    with contextlib.suppress(subprocess.SubprocessError, OSError):  # SLURM may have requeued it by itself
        signal.raise_signal(signal.Signals[f"SIG{name}"])
    raise SystemExit(REQUEUE)
