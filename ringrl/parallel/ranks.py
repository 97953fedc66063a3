"""The index of this process among several, as far as it is known without JAX."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def find_scheduler(environment: Mapping[str, str]) -> str | None:
    """The scheduler that started this process as one of several, or None."""

    def count(name: str) -> int:
        value = environment.get(name, "")
        return int(value) if value.isdigit() else 0

    if "SLURM_PROCID" in environment and count("SLURM_STEP_NUM_TASKS") > 1:
        return "SLURM"
    if count("OMPI_COMM_WORLD_SIZE") > 1:
        return "Open MPI"
    if "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        return "TPU pod"
    return None


def is_follower(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is not the first of several, judging by its command and scheduler alone."""
    said = {key.lstrip("+"): value.strip("\"'") for key, _, value in (text.partition("=") for text in arguments)}
    if "distributed.process_id" in said:
        return said["distributed.process_id"] not in ("0", "-1")
    if said.get("distributed.detect", "").lower() in ("false", "no", "off", "0"):
        return False
    rank = {"SLURM": "SLURM_PROCID", "Open MPI": "OMPI_COMM_WORLD_RANK", "TPU pod": "TPU_WORKER_ID"}
    scheduler = find_scheduler(environment)
    return scheduler is not None and environment.get(rank[scheduler], "0") != "0"


def is_main_process() -> bool:
    """Whether this process writes logs, results and terminal output."""
    jax: Any = sys.modules.get("jax")  # a process that has not imported JAX is alone so far
    return jax is None or not jax.distributed.is_initialized() or jax.process_index() == 0  # this initializes devices
