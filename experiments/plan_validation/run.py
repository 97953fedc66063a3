"""Planned bytes against those that a real step takes, on this machine's devices.

Each case runs in a process of its own: it compiles the step, notes what the process holds, makes a state and a batch,
runs one, and compares the peak with what the compiler had said, times the devices. On a CPU, whose devices are
virtual and share one memory, the peak is the process's (Linux's VmHWM, reset before the first step); on a GPU it is
the allocator's own.

Writes results/plan_validation.json and prints a table; `--smoke`: one small case, and writes nothing.
"""

import ctypes
import dataclasses
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.lib.results import make_parser, make_table, write_results
from ringrl.agents import SequenceAgent
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.parallel import make_mesh
from ringrl.planning.compile.step import abstract_batch, abstract_state, compile_step, synthetic_agent
from ringrl.training.config import TrainingConfig

RESULTS = Path(__file__).parent / "results"
MIB = 2**20
WARM_UP = 512  # tokens a device


@dataclasses.dataclass(frozen=True)
class Case:
    """A step."""

    devices: int
    remat: str
    width: int = 1024
    layers: int = 4
    tokens: int = 2048


CASES = [Case(devices, remat) for devices in (1, 8) for remat in ("layer", "attention", "none")]
SMOKE = Case(2, "layer", width=64, layers=2, tokens=512)


def run_case(case: Case) -> dict[str, Any]:
    """In this process: bytes of all devices together, planned and measured."""
    model = ModelConfig(
        layers=case.layers,
        width=case.width,
        heads=case.width // 64,
        remat=case.remat,
        unroll_layers=False,
        feedforward_block_size=512,
    )
    strategy, mesh = ("ring", make_mesh(ring=case.devices)) if case.devices > 1 else ("blockwise", None)
    attention = AttentionConfig(strategy, query_block_size=512, key_block_size=512)
    agent, training = synthetic_agent(model, attention, mesh, loss_block_size=512), TrainingConfig(batch_size=1)
    _step(agent, training, WARM_UP * case.devices)()  # starts the pools of threads, which are nobody's arrays
    run = _step(agent, training, case.tokens)
    before = _held()
    planned = run()
    measured = _peak() - before
    return {**dataclasses.asdict(case), "planned_bytes": planned * case.devices, "measured_bytes": measured}


def _step(agent: SequenceAgent, training: TrainingConfig, tokens: int) -> Callable[[], int]:
    """A compiled step that makes its own state and batch, and returns the bytes that its compiler reports."""
    compiled = compile_step(agent, training, 1, tokens)
    like = abstract_state(agent, training), abstract_batch(agent, 1, tokens)
    shardings = None if agent.mesh is None else jax.tree.map(lambda leaf: leaf.sharding, like)
    make = jax.jit(lambda: jax.tree.map(_zeros, like), out_shardings=shardings).lower().compile()
    stats = compiled.memory_analysis()

    def run() -> int:
        state, batch = jax.block_until_ready(make())
        _forget_peak()
        jax.block_until_ready(compiled(state, batch))
        beside = stats.output_size_in_bytes - stats.alias_size_in_bytes + stats.temp_size_in_bytes
        return stats.argument_size_in_bytes + beside

    return run


def _zeros(leaf: Any) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
    return jnp.zeros(leaf.shape, leaf.dtype)


def _held() -> int:
    """Bytes in use now, after what can be given back was."""
    gc.collect()
    if (stats := jax.local_devices()[0].memory_stats()) is not None:
        return stats["bytes_in_use"]
    ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def _forget_peak() -> None:
    if jax.local_devices()[0].memory_stats() is None:
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    if (stats := jax.local_devices()[0].memory_stats()) is not None:
        return stats["peak_bytes_in_use"]
    return _status("VmHWM")


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def apart(case: Case) -> dict[str, Any]:
    """The same in a process of its own, which starts with nothing held."""
    command = [sys.executable, __file__, "--case", json.dumps(dataclasses.asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown, MiB of all devices together."""
    lines = []
    for row in rows:
        planned, measured = row["planned_bytes"], row["measured_bytes"]
        sizes = f"{planned / MIB:,.0f}", f"{measured / MIB:,.0f}", f"{measured / planned:.3f}"
        lines.append((row["devices"], row["remat"], *sizes))
    return make_table(("devices", "remat", "planned, MiB", "measured, MiB", "measured / planned"), lines, left=2)


def main() -> None:
    """Every case, one after the other."""
    parser = make_parser(__doc__)
    parser.add_argument("--case", help="one case, as JSON, in this process")
    options = parser.parse_args()
    if options.case:
        case = Case(**json.loads(options.case))
        jax.config.update("jax_num_cpu_devices", case.devices)
        print(json.dumps(run_case(case)))
        return
    rows = [apart(case) for case in ([SMOKE] if options.smoke else CASES)]
    print(table(rows))
    if options.smoke:
        return
    write_results(RESULTS / "plan_validation.json", "plan_validation", rows=rows)


if __name__ == "__main__":
    main()
