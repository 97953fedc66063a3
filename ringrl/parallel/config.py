"""Configuration of the mesh and of the processes of a run."""

import dataclasses

from ringrl.errors import RingRLError

HIGHEST_PORT = 65535
AXES = ("data", "fsdp", "ring", "head")  # of the mesh


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; -1, at most once, takes the remaining devices."""

    data: int = 1  # replicas of the parameters, each with a shard of the batch
    fsdp: int = 1  # shards of the batch and of the parameters
    ring: int = 1  # shards of every chain, for attention=ring or hybrid
    head: int = 1  # shards of every chain that exchange tokens for heads, for attention=ulysses or hybrid
    explain: bool = False  # print the sharding and train nothing

    def __post_init__(self) -> None:
        for axis in AXES:
            size = getattr(self, axis)
            if size < 1 and size != -1:
                raise RingRLError(f"mesh.{axis}={size}: use at least 1, or -1 for the devices that are left.")
        if sum(getattr(self, axis) == -1 for axis in AXES) > 1:
            raise RingRLError("mesh: only one axis can be -1.")

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes by axis name, as `make_mesh` takes them."""
        return {axis: getattr(self, axis) for axis in AXES}


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """Processes of a multi-process run."""

    coordinator: str = ""  # HOST:PORT of process 0, as the others reach it
    process_id: int = -1  # of this process, from 0
    num_processes: int = 0  # processes of the run; 0 with coordinator='' is one process
    detect: bool = True  # detect SLURM, Open MPI or a TPU pod if one of them started the process
    timeout_seconds: int = 300  # time limit for all processes to connect

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
        if self.coordinator and not (host and port.isdigit() and 0 < int(port) <= HIGHEST_PORT):
            raise RingRLError(
                f"distributed.coordinator={self.coordinator}: give HOST:PORT, such as node0:8476, with a port of 1 to "
                f"{HIGHEST_PORT}."
            )
        if self.timeout_seconds < 1:
            raise RingRLError(f"distributed.timeout_seconds={self.timeout_seconds}: use at least 1.")
