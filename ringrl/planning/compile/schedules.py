"""The schedule of attention by a target's own compiler, obtained in a separate process."""

import dataclasses
import json
import sys
import time
from typing import Any

from ringrl.errors import RingRLError
from ringrl.ops import Kernel
from ringrl.planning.cluster.topology import topology_mesh
from ringrl.planning.compile.attention import AttentionSizes, Program, compile_attention
from ringrl.planning.compile.process import run_apart
from ringrl.planning.hlo.overlap import Permute, find_permutes
from ringrl.planning.hlo.parser import parse

_HOME = "/home/"  # the scope in which the ring returns gradients to their devices


@dataclasses.dataclass(frozen=True)
class Request:
    """A request for attention over all devices of a topology, as one ring."""

    target: str
    program: Program = Program.gradient
    sizes: AttentionSizes = dataclasses.field(default_factory=AttentionSizes)
    kernel: Kernel = Kernel.xla
    flags: bool = True  # use those of ringrl.training.compiler_flags


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The result of a request."""

    device_kind: str
    devices: int
    compile_seconds: float
    permutes: tuple[Permute, ...]

    @property
    def hops(self) -> tuple[Permute, ...]:
        """Transfers that overlap a step of the ring."""
        return tuple(permute for permute in self.permutes if _HOME not in permute.operation)

    @property
    def homeward(self) -> tuple[Permute, ...]:
        """Transfers that return a chunk's gradients after its trip: no computation of that chunk is left."""
        return tuple(permute for permute in self.permutes if _HOME in permute.operation)


def schedule(request: Request) -> Schedule:
    """Compile in a separate process, which leaves this process's JAX unchanged.

    Raises RingRLError for an unknown target and if its compiler is missing or refuses.
    """
    done = run_apart("ringrl.planning.compile.schedules", [json.dumps(dataclasses.asdict(request))])
    if done.returncode:
        raise RingRLError((done.stderr.strip().splitlines() or ["the compiler died"])[-1])
    found = json.loads(done.stdout.splitlines()[-1])
    found["permutes"] = tuple(_permute(fields) for fields in found["permutes"])
    return Schedule(**found)


def _permute(fields: dict[str, Any]) -> Permute:
    return Permute(**{**fields, "shapes": tuple(fields["shapes"]), "across": tuple(fields["across"])})


def _compile(request: Request) -> Schedule:
    mesh = topology_mesh(request.target)
    began = time.perf_counter()
    compiled = compile_attention(mesh, request.program, request.sizes, kernel=request.kernel, flags=request.flags)
    seconds = time.perf_counter() - began
    return Schedule(
        mesh.devices.flat[0].device_kind, mesh.size, seconds, tuple(find_permutes(parse(compiled.as_text())))
    )


def main() -> None:
    """Entry point of the separate process: a request on the command line, a schedule on standard output, both JSON."""
    asked = json.loads(sys.argv[1])
    choices = {"program": Program(asked["program"]), "kernel": Kernel(asked["kernel"])}
    request = Request(**{**asked, **choices, "sizes": AttentionSizes(**asked["sizes"])})
    try:
        print(json.dumps(dataclasses.asdict(_compile(request))))
    except RingRLError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
