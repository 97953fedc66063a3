"""Many processes as one: they are started by the user or a scheduler, all with the same command, and find each other.

SLURM, Open MPI and TPU pods are recognised, and JAX reads from them who is who; elsewhere (Kubernetes, by hand) the
command says it.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from ringrl.errors import RingRLError
from ringrl.parallel.config import DistributedConfig as DistributedConfig
from ringrl.parallel.ranks import follows as follows
from ringrl.parallel.ranks import is_main_process as is_main_process
from ringrl.parallel.ranks import started_by as started_by

HEARTBEAT_SECONDS = 20  # without a sign of life from a process, until the others give up
_LONGEST_TEXT = 4096  # bytes
_DAY_MS = 24 * 3600 * 1000


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
