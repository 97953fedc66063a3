"""What one device sends in one training step, on paper and in the compiled program, for each kind of mesh.

The Agentic Transformer, model=small in float32, on eight devices: compiled for eight virtual CPUs, whose compiler
leaves collectives as the program asks for them (in bfloat16 it widens what travels, so bfloat16 is on paper alone).
Bytes as `ringrl.planning.model.traffic` counts them. As many chains as data x fsdp asks for; nothing runs.

Writes results/communication.json and prints a table. `--smoke`: one small mesh, and writes nothing.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.lib.results import make_parser, make_table, write_results
from experiments.lib.sizes import load_model_config
from ringrl.agents import SequenceAgent
from ringrl.ops import AttentionConfig
from ringrl.parallel import make_mesh
from ringrl.planning.compile.step import compile_step, synthetic_agent
from ringrl.planning.hlo.collectives import Kind, find_collectives, sum_bytes_sent
from ringrl.planning.hlo.parser import parse
from ringrl.planning.model.traffic import estimate_traffic
from ringrl.training.config import TrainingConfig

RESULTS = Path(__file__).parent / "results" / "communication.json"
QUICK = {"xla_backend_optimization_level": 0}
DEVICES, BLOCK = 8, 512


@dataclasses.dataclass(frozen=True)
class Case:
    """A program."""

    strategy: str
    mesh: dict[str, int]
    model: str = "small"
    tokens: int = 2**15  # of each chain
    remat: str = "layer"

    @property
    def chains(self) -> int:
        """One for each group of devices that holds whole chains."""
        return self.mesh.get("data", 1) * self.mesh.get("fsdp", 1)

    def agent(self, dtype: Any) -> SequenceAgent:
        """Attention, feed-forward and loss a block at a time."""
        sizes = {"remat": self.remat, "feedforward_block_size": BLOCK, "unroll_layers": False}
        model = dataclasses.replace(load_model_config(self.model), **sizes)
        attention = AttentionConfig(self.strategy, query_block_size=BLOCK, key_block_size=BLOCK)
        mesh = make_mesh(**self.mesh)
        return synthetic_agent(model, attention, mesh, compute_dtype=dtype, loss_block_size=BLOCK)


CASES = (
    Case("blockwise", {"data": 8}),
    Case("blockwise", {"fsdp": 8}),
    Case("ring", {"ring": 8}),
    Case("ring", {"ring": 8}, remat="attention"),
    Case("ring", {"fsdp": 2, "ring": 4}),
    Case("ulysses", {"head": 8}),
    Case("ulysses", {"fsdp": 2, "head": 4}),
    Case("hybrid", {"ring": 4, "head": 2}),
    Case("hybrid", {"data": 2, "ring": 2, "head": 2}),
)
SMOKE = (Case("ring", {"ring": 2}, model="tiny", tokens=2048),)


def compared(case: Case) -> dict[str, Any]:
    """A row: bytes of one device in one step, by kind."""
    agent = case.agent(jnp.float32)
    compiled = compile_step(agent, TrainingConfig(), case.chains, case.tokens, QUICK)
    found = sum_bytes_sent(find_collectives(parse(compiled.as_text())))
    jax.clear_caches()
    return {
        **dataclasses.asdict(case),
        "chains": case.chains,
        "paper": {str(kind): size for kind, size in estimate_traffic(agent, case.chains, case.tokens).items()},
        "compiled": {str(kind): size for kind, size in found.items()},
        "paper_bfloat16": {
            str(kind): size
            for kind, size in estimate_traffic(case.agent(jnp.bfloat16), case.chains, case.tokens).items()
        },
    }


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown, megabytes: compiled by kind, their sum, what paper makes of it, and the same in bfloat16."""
    heads = ("strategy", "mesh", "remat", *Kind, "all", "paper / compiled", "bfloat16, paper")
    lines = []
    for row in rows:
        mesh = " ".join(f"{axis}={size}" for axis, size in row["mesh"].items())
        sums = {name: sum(row[name].values()) for name in ("paper", "compiled", "paper_bfloat16")}
        sizes = [f"{row['compiled'][kind] / 1e6:.3g}" for kind in Kind]
        sizes += [f"{sums['compiled'] / 1e6:.4g}", f"{sums['paper'] / sums['compiled']:.4f}"]
        lines.append((row["strategy"], mesh, row["remat"], *sizes, f"{sums['paper_bfloat16'] / 1e6:.4g}"))
    return make_table(heads, lines, left=3)


def main() -> None:
    """Compiles every case."""
    smoke = make_parser(__doc__).parse_args().smoke
    jax.config.update("jax_num_cpu_devices", DEVICES)
    rows = [compared(case) for case in (SMOKE if smoke else CASES)]
    print(table(rows))
    if smoke:
        return
    write_results(RESULTS, "communication", unit="bytes sent by a device in a step", rows=rows)


if __name__ == "__main__":
    main()
