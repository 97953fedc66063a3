"""When a ring's transfers travel, by the schedules that TPUs' and GPUs' own compilers emit; none of them is here.

For each target: how many transfers the compiled program holds (a loop's body counts once), how many of them are
scheduled across a block loop (or the fused kernel in its place), how many are exposed, and how many take a piece's
gradients, complete, home at the end of its trip, with nothing of that piece left to compute. `make aot` installs the
compilers. Writes results/schedules.json and prints a table.

A schedule says what may overlap. It does not say that communication is hidden, nor how fast anything is.
"""

import argparse
import dataclasses
import importlib.metadata
from pathlib import Path
from typing import Any

import jax

from experiments.lib.results import make_table, write_results
from ringrl.ops import Kernel
from ringrl.planning.compile.attention import AttentionSizes, Program
from ringrl.planning.compile.process import COMPILERS
from ringrl.planning.compile.schedules import Request, schedule
from ringrl.planning.hlo.overlap import Permute

RESULTS = Path(__file__).parent / "results" / "schedules.json"
SIZES = AttentionSizes(tokens=4096, heads=32, key_heads=32, head_size=128, block_size=1024, layers=4)
TARGETS = ("v3:2x2", "v4-core:2x2x1", "v4:2x2x2", "v4:8x8x8", "v4:8x8x16", "v5e:2x4", "h100:8", "a100:8")
FLAGGED = ("v3", "h100", "a100")  # for these, also without the flags that the trainer sets
FUSED = ("v4:2x2x2", "v4:8x8x8", "v5e:2x4")  # for these, also with the kernel that `auto` takes there
COUNTS = ("transfers", "across", "exposed", "homeward")
COLUMNS = ("target", "devices", "flags", "kernel", "program", "direction", *COUNTS, "seconds")


def rows(request: Request) -> list[dict[str, Any]]:
    """One for each direction, of one compiled program."""
    found = schedule(request)
    shared = {"target": request.target, "device_kind": found.device_kind, "devices": found.devices}
    shared |= {"flags": request.flags, "kernel": str(request.kernel), "program": str(request.program)}
    shared |= {"seconds": round(found.compile_seconds, 1)}

    def of(direction: str, hops: list[Permute], homeward: int) -> dict[str, Any]:
        exposed = [str(hop) for hop in hops if hop.exposed]
        counts = {"transfers": len(hops), "across": len(hops) - len(exposed), "exposed": len(exposed)}
        return {**shared, "direction": direction, **counts, "homeward": homeward, "which_exposed": exposed}

    return [
        of("forward", [hop for hop in found.hops if not hop.backward], 0),
        of("backward", [hop for hop in found.hops if hop.backward], len(found.homeward)),
    ]


def versions() -> dict[str, str]:
    """Of JAX and of the compilers."""
    installed = importlib.metadata.distributions(path=[str(COMPILERS)])
    found = {distribution.metadata["Name"]: distribution.version for distribution in installed}
    return {"jax": jax.__version__, **dict(sorted(found.items()))}


def table(found: list[dict[str, Any]]) -> str:
    """In Markdown."""
    return make_table(COLUMNS, [[row[name] for name in COLUMNS] for row in found], left=6)


def main() -> None:
    """Every target, kernel and program, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--programs", nargs="+", default=["gradient", "layers"], choices=[str(one) for one in Program])
    parser.add_argument("--output", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    found: list[dict[str, Any]] = []
    for target in chosen.targets:
        for flags in (False, True) if target.startswith(FLAGGED) else (True,):
            for kernel in (Kernel.xla, Kernel.pallas) if target in FUSED else (Kernel.xla,):
                for program in chosen.programs:
                    found += rows(Request(target, Program(program), SIZES, kernel, flags))
    about = {"versions": versions(), "sizes": dataclasses.asdict(SIZES)}
    write_results(chosen.output, "schedules", **about, rows=found)
    print(table(found))


if __name__ == "__main__":
    main()
