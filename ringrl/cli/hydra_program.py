"""Calls Hydra's program with words in place of those that this process was started with."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra._internal.hydra import Hydra
from omegaconf import DictConfig

_MAY_SET_MODE = ("hydra.mode", "hydra.searchpath", "--config-dir", "-cd")  # beginnings of words


def call_hydra(command: str, words: Sequence[str], conf: Path, job: Callable[[DictConfig], None]) -> None:
    """Compose the configuration that `words` describe and call `job` with it, once per job of a sweep.

    Exceptions are passed on unchanged.

    Args:
        command: the command whose file in `conf` is the primary configuration.
        words: flags and overrides in Hydra's syntax.
        conf: RingRL's folder of YAML files.
        job: called with the composed configuration.
    """
    arguments, full_error, get_mode = sys.argv, os.environ.get("HYDRA_FULL_ERROR"), Hydra.get_mode
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = [f"ringrl {command}", *words], "1"
    if not any(word.lstrip("+").startswith(_MAY_SET_MODE) for word in words):
        # Hydra composes everything an additional time to read hydra.mode, which no file of RingRL's own sets.
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        hydra.main(version_base="1.3", config_path=str(conf), config_name=command)(job)()
    finally:
        sys.argv, Hydra.get_mode = arguments, get_mode  # type: ignore[method-assign]
        if full_error is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
