"""Who takes part: what the command says, and what schedulers do."""

import pytest

from ringrl.errors import RingRLError
from ringrl.parallel.multiprocess import (
    DistributedConfig,
    agree_on_text,
    first_process_first,
    follows,
    is_main_process,
    join_processes,
    started_by,
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
def test_schedulers_are_recognised(environment: dict[str, str], scheduler: str | None) -> None:
    assert started_by(environment) == scheduler


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
    assert follows(words, environment) is expected


def test_one_process_needs_nothing() -> None:
    join_processes(DistributedConfig(), environment={})
    join_processes(DistributedConfig(detect=False), environment=SLURM)
    assert is_main_process()
    assert agree_on_text("a") == "a"
    wait_for_process_0("nothing")
    with first_process_first("nothing"):
        pass
