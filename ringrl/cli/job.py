"""One job of a command: its configuration built and checked, its run folder, its failure put on record."""

import importlib
import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from ringrl.cli.compose import command_from
from ringrl.cli.failures import ERROR_FILE, describe
from ringrl.config import COMMANDS


def run_job(command: str, config: DictConfig) -> Exception | None:
    """Run `command` in its folder; the error of a single run is returned.

    A sweep's job leaves its error in its folder instead, so that the other jobs go on and a job in another
    process or on another machine is heard of; a fault of the program's own is raised.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        set_defaults_of_libraries()
        built = command_from(COMMANDS[command], config)
        importlib.import_module(f"ringrl.cli.{command}").run(built, folder)
    except Exception as error:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            return error
        line = describe(error)
        if line is None or config.debug:
            raise
        overrides = " ".join(HydraConfig.get().overrides.task)
        (folder / ERROR_FILE).write_text(f"{line} (job {overrides})\n")
    return None


def set_defaults_of_libraries() -> None:
    """The one place that sets library switches; whatever the user has set stays."""
    os.environ.setdefault("MUJOCO_GL", "disable")  # no display; rendering asks for egl or osmesa
    os.environ.setdefault("IMAGEIO_FFMPEG_NO_PREVENT_SIGINT", "1")  # else it forks, which JAX's threads do not bear
