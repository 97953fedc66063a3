"""Participation in a run of several processes, by command line and by schedulers."""

import os
import socket
import subprocess
import sys

import pytest

from ringrl.errors import RingRLError
from ringrl.parallel import multiprocess
from ringrl.parallel.multiprocess import (
    DistributedConfig,
    agree_on_text,
    find_scheduler,
    first_process_first,
    in_process_0,
    is_follower,
    is_main_process,
    join_processes,
    wait_for_process_0,
)

SLURM = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
TPU = {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "0"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"coordinator": "a:1"}, "go together"),
        ({"process_id": 0, "num_processes": 2}, "go together"),
        ({"coordinator": "a:1", "process_id": 2, "num_processes": 2}, "use 0 to 1"),
        ({"coordinator": "a", "process_id": 0, "num_processes": 2}, "HOST:PORT"),
        ({"coordinator": "a:b", "process_id": 0, "num_processes": 2}, "HOST:PORT"),
        ({"coordinator": "a:65536", "process_id": 0, "num_processes": 2}, "a port of 1 to 65535"),
        ({"coordinator": "a:0", "process_id": 0, "num_processes": 2}, "a port of 1 to 65535"),
        ({"timeout_seconds": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_is_refused(given: dict, says: str) -> None:
    with pytest.raises(RingRLError, match=says):
        DistributedConfig(**given)


@pytest.mark.parametrize(
    ("environment", "scheduler"),
    [
        (SLURM, "SLURM"),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, None),  # a job of a sweep
        ({"SLURM_PROCID": "0"}, None),  # in an allocation, without srun
        (OPEN_MPI, "Open MPI"),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "1"}, None),
        (TPU, "TPU pod"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({}, None),
    ],
)
def test_schedulers_are_recognized(environment: dict[str, str], scheduler: str | None) -> None:
    assert find_scheduler(environment) == scheduler


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        (["distributed.process_id=1"], {}, True),
        (["distributed.process_id=0"], SLURM, False),
        ([], SLURM, True),
        ([], {**SLURM, "SLURM_PROCID": "0"}, False),
        ([], OPEN_MPI, True),
        ([], TPU, False),
        (["seed=1"], {}, False),
    ],
)
def test_who_follows(words: list[str], environment: dict[str, str], expected: bool) -> None:
    assert is_follower(words, environment) is expected


def test_one_process_needs_nothing() -> None:
    join_processes(DistributedConfig(), environment={})
    join_processes(DistributedConfig(detect=False), environment=SLURM)
    assert is_main_process()
    assert agree_on_text("a") == "a"
    wait_for_process_0("nothing")
    with first_process_first("nothing"):
        pass


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, ""), (socket.AF_INET6, "")]
)
def test_a_coordinator_s_port_that_is_taken_is_one_line(monkeypatch, family, address) -> None:
    """JAX's service would end the process by a segmentation fault."""
    monkeypatch.setattr(multiprocess.jax.distributed, "initialize", lambda **_: pytest.fail("it was started"))
    with socket.socket(family) as other:
        other.bind((address, 0))
        other.listen()
        port = other.getsockname()[1]
        config = DistributedConfig(f"localhost:{port}", process_id=0, num_processes=2)
        with pytest.raises(RingRLError, match=f"port {port} cannot be used .* another program listens on it"):
            join_processes(config, environment={})


def test_a_port_that_is_free_is_left_free_and_only_process_0_asks(monkeypatch) -> None:
    started = []
    monkeypatch.setattr(multiprocess.jax.distributed, "initialize", lambda **arguments: started.append(arguments))
    monkeypatch.setattr(multiprocess.jax, "process_count", lambda: 2)
    monkeypatch.setattr(multiprocess.jax.config, "update", lambda *_: None)
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    join_processes(DistributedConfig(f"localhost:{port}", process_id=0, num_processes=2), environment={})
    with socket.socket() as service:  # as JAX's does, next
        service.bind(("", port))
        service.listen()
        join_processes(DistributedConfig(f"localhost:{port}", process_id=1, num_processes=2), environment={})
    assert [arguments["process_id"] for arguments in started] == [0, 1]


def test_processes_that_were_told_different_numbers_do_not_go_on(monkeypatch) -> None:
    monkeypatch.setattr(multiprocess.jax.distributed, "initialize", lambda **_: None)
    monkeypatch.setattr(multiprocess.jax, "process_count", lambda: 2)
    monkeypatch.setattr(multiprocess.jax.config, "update", lambda *_: None)
    with pytest.raises(RingRLError, match=r"distributed\.num_processes=3, but process 0 was told 2"):
        join_processes(DistributedConfig("localhost:8476", process_id=1, num_processes=3), environment={})


def test_what_process_0_refuses_all_refuse(monkeypatch) -> None:
    def refuse():
        raise RingRLError("no room")

    assert in_process_0("count", lambda: 3) == 3
    with pytest.raises(RingRLError, match="no room"):
        in_process_0("count", refuse)
    # The other process does nothing and gets the error.
    monkeypatch.setattr(multiprocess, "is_main_process", lambda: False)
    monkeypatch.setattr(multiprocess, "agree_on_text", lambda text: "no room")
    with pytest.raises(RingRLError, match="no room"):
        in_process_0("count", lambda: pytest.fail("it is process 0's"))


def test_a_process_that_is_alone_starts_no_device() -> None:
    """A command holds its folder before it says how many virtual devices it wants."""
    program = (
        "import jax; from ringrl.parallel import multiprocess as m; "
        "assert m.agree_on_text('a') == 'a' and m.in_process_0('b', lambda: 1) == 1; m.wait_for_process_0('c'); "
        "jax.config.update('jax_num_cpu_devices', 3); assert jax.device_count() == 3"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
