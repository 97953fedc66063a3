"""Many processes as one: they are started by the user or a scheduler, all with the same command, and find each other.

SLURM, Open MPI and TPU pods are recognised, and JAX reads from them who is who; elsewhere (Kubernetes, by hand) the
command says it.
"""

import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from ringrl.errors import RingRLError

HEARTBEAT_SECONDS = 20  # without a sign of life from a process, until the others give up
_LONGEST_TEXT = 4096  # bytes
_DAY_MS = 24 * 3600 * 1000


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """Who takes part in a run of several processes."""

    coordinator: str = ""  # HOST:PORT of process 0, as the others reach it
    process_id: int = -1  # of this process, from 0
    num_processes: int = 0
    detect: bool = True  # ask SLURM, Open MPI or a TPU pod, where the process was started by one
    timeout_seconds: int = 300  # for all to arrive

    def __post_init__(self) -> None:
        given = [bool(self.coordinator), self.process_id >= 0, self.num_processes > 0]
        if any(given) and not all(given):
            raise RingRLError(
                "distributed: coordinator=HOST:PORT, process_id=I and num_processes=N go together: give all three."
            )
        if self.num_processes and self.process_id >= self.num_processes:
            raise RingRLError(
                f"distributed.process_id={self.process_id}: use 0 to {self.num_processes - 1}, one for each of the "
                f"{self.num_processes} processes."
            )
        host, _, port = self.coordinator.rpartition(":")
        if self.coordinator and not (host and port.isdigit()):
            raise RingRLError(f"distributed.coordinator={self.coordinator}: give HOST:PORT, such as node0:8476.")
        if self.timeout_seconds < 1:
            raise RingRLError(f"distributed.timeout_seconds={self.timeout_seconds}: use at least 1.")


def join_processes(config: DistributedConfig, environment: Mapping[str, str] = os.environ) -> None:
    """Become one of the processes of a run; before anything asks JAX for devices. One process alone needs nothing.

    Raises RingRLError where there is nobody to join, and ends the process, with exit code 2, where the others do not
    arrive in time.
    """
    if jax.distributed.is_initialized():
        return
    if config.coordinator:
        arguments = {
            "coordinator_address": config.coordinator,
            "num_processes": config.num_processes,
            "process_id": config.process_id,
            "cluster_detection_method": "deactivate",
        }
    elif config.detect and started_by(environment) is not None:
        arguments = {}
    else:
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM, which is ours to handle
    # JAX aborts the process when others do not arrive: this comes before, and says so in one line.
    patience = threading.Timer(config.timeout_seconds, _give_up, [_missing(config, environment)])
    patience.daemon = True
    patience.start()
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=config.timeout_seconds + 60,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise RingRLError(f"{_missing(config, environment)} ({str(error).strip().splitlines()[0]})") from error
    finally:
        patience.cancel()


def _missing(config: DistributedConfig, environment: Mapping[str, str]) -> str:
    return (
        f"The processes of this run did not find each other ({config.coordinator or started_by(environment)}): start "
        "all of them, check that distributed.coordinator is reached from each, or raise distributed.timeout_seconds."
    )


def _give_up(line: str) -> None:
    os.write(2, f"ringrl: error: {line}\n".encode())
    os._exit(2)


def started_by(environment: Mapping[str, str]) -> str | None:
    """Which scheduler has started this process as one of several; None where none has."""

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


def follows(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is not the first of several, as far as its command and its scheduler say beforehand."""
    said = {key.lstrip("+"): value.strip("\"'") for key, _, value in (text.partition("=") for text in arguments)}
    if "distributed.process_id" in said:
        return said["distributed.process_id"] not in ("0", "-1")
    if said.get("distributed.detect", "").lower() in ("false", "no", "off", "0"):
        return False
    rank = {"SLURM": "SLURM_PROCID", "Open MPI": "OMPI_COMM_WORLD_RANK", "TPU pod": "TPU_WORKER_ID"}
    scheduler = started_by(environment)
    return scheduler is not None and environment.get(rank[scheduler], "0") != "0"


def is_main_process() -> bool:
    """Whether this process writes logs, results and what is on the screen."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0  # to ask for an index starts devices


def agree_on_text(text: str) -> str:
    """Process 0's text, in every process; all call it."""
    if jax.process_count() == 1:
        return text
    encoded = np.zeros(_LONGEST_TEXT, np.uint8)
    data = text.encode()[:_LONGEST_TEXT]
    encoded[: len(data)] = np.frombuffer(data, np.uint8)
    found = np.asarray(multihost_utils.broadcast_one_to_all(encoded), np.uint8)
    return found.tobytes().rstrip(b"\0").decode()


def wait_for_process_0(what: str) -> None:
    """All processes wait here for each other, for up to a day: a collective on devices would not bear that long."""
    if jax.process_count() > 1:
        from orbax.checkpoint import multihost  # it wraps JAX's coordination service

        multihost.get_barrier_sync_fn()(key=f"ringrl {what}", timeout_ms=_DAY_MS)


@contextlib.contextmanager
def first_process_first(what: str) -> Iterator[None]:
    """Process 0 does what is inside before the others do: it fills a cache that they may share."""
    if not is_main_process():
        wait_for_process_0(what)
    yield
    if is_main_process():
        wait_for_process_0(what)
