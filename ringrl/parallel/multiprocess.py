"""Multi-process runs: processes started by the user or a scheduler with the same command, which connect to each other.

SLURM, Open MPI and TPU pods are detected, and JAX reads the process ids from them; elsewhere (Kubernetes, manual
starts) they are given on the command line.
"""

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from ringrl.errors import RingRLError
from ringrl.parallel.config import DistributedConfig as DistributedConfig
from ringrl.parallel.ranks import find_scheduler as find_scheduler
from ringrl.parallel.ranks import is_follower as is_follower
from ringrl.parallel.ranks import is_main_process as is_main_process

HEARTBEAT_SECONDS = 20  # without a sign of life from a process before the others stop
_LONGEST_TEXT = 4096  # bytes
_DAY_MS = 24 * 3600 * 1000

_Result = TypeVar("_Result")


def join_processes(config: DistributedConfig, environment: Mapping[str, str] = os.environ) -> None:
    """Join the processes of a run, before any use of JAX devices. A single process needs no setup.

    Raises RingRLError if there is no coordinator to join, and ends the process with exit code 2 if the others do not
    connect in time.
    """
    if jax.distributed.is_initialized():
        return
    if config.coordinator:
        if config.process_id == 0:
            check_port_is_free(config.coordinator)
        arguments = {
            "coordinator_address": config.coordinator,
            "num_processes": config.num_processes,
            "process_id": config.process_id,
            "cluster_detection_method": "deactivate",
        }
    elif config.detect and find_scheduler(environment) is not None:
        arguments = {}
    else:
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would consume SIGTERM, which the run handles itself
    # JAX aborts the process when others do not connect: this timeout comes first and reports it in one line.
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
    if config.num_processes and jax.process_count() != config.num_processes:
        raise RingRLError(
            f"distributed.num_processes={config.num_processes}, but process 0 was told {jax.process_count()}: give all "
            "processes the same number."
        )


def check_port_is_free(coordinator: str) -> None:
    """Raise RingRLError if this machine's port of a coordinator, HOST:PORT, is not free.

    JAX's service does not report that: it ends the process with a segmentation fault.
    """
    port = int(coordinator.rpartition(":")[2])
    for family in (socket.AF_INET6, socket.AF_INET):
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
        except OSError:  # a machine without IPv6, or without IPv4
            continue
        with listener:
            # Connections of a run that has just ended linger for a minute; they do not count.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("", port))
                listener.listen()
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EPERM):
                    continue
                taken = error.errno == errno.EADDRINUSE
                why = "another program listens on it" if taken else "only root may listen on it"
                raise RingRLError(
                    f"distributed.coordinator={coordinator}: port {port} cannot be used on this machine, for {why}: "
                    "give another port, the same to every process."
                ) from None


def _missing(config: DistributedConfig, environment: Mapping[str, str]) -> str:
    where = config.coordinator or find_scheduler(environment)
    return (
        f"The processes of this run did not find each other ({where}): start all of them, "
        "check that distributed.coordinator is reached from each, or raise distributed.timeout_seconds."
    )


def _give_up(line: str) -> None:
    os.write(2, f"ringrl: error: {line}\n".encode())
    os._exit(2)


def is_alone() -> bool:
    """Whether this is the only process of the run; initializes no device if processes have not joined."""
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def agree_on_text(text: str) -> str:
    """Broadcast process 0's text to every process; a collective."""
    if is_alone():
        return text
    encoded = np.zeros(_LONGEST_TEXT, np.uint8)
    data = text.encode()[:_LONGEST_TEXT]
    encoded[: len(data)] = np.frombuffer(data, np.uint8)
    found = np.asarray(multihost_utils.broadcast_one_to_all(encoded), np.uint8)
    return found.tobytes().rstrip(b"\0").decode(errors="ignore")  # a truncated text may end within a character


def in_process_0(what: str, act: Callable[[], _Result]) -> _Result | None:
    """Run `act()` in process 0 alone while the others wait; they get None. A collective.

    A RingRLError raised in process 0 is raised in every process, so that all end alike.
    """
    result, fault = None, ""
    if is_main_process():
        try:
            result = act()
        except RingRLError as error:
            fault = str(error) or type(error).__name__
    wait_for_process_0(what)
    if fault := agree_on_text(fault):
        raise RingRLError(fault)
    return result


def wait_for_process_0(what: str) -> None:
    """Barrier of all processes with a timeout of a day; a collective on devices would time out earlier."""
    if not is_alone():
        from orbax.checkpoint import multihost  # it wraps JAX's coordination service

        multihost.get_barrier_sync_fn()(key=f"ringrl {what}", timeout_ms=_DAY_MS)


@contextlib.contextmanager
def first_process_first(what: str) -> Iterator[None]:
    """Context in which process 0 runs its body before the others, for example to fill a cache that they share."""
    if not is_main_process():
        wait_for_process_0(what)
    yield
    if is_main_process():
        wait_for_process_0(what)
