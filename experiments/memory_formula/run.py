"""The memory formula held against what compilers report, over clusters, sizes and options.

The formula is `ringrl.planning.model.memory`. Every point is one whole training step, compiled by its target's own
compiler (`make aot`); nothing runs. A point that is in results/points.json is not compiled again, unless `--again`;
what the formula says is computed anew each time.

Writes results/points.json after each point, predicted.png at the end, and prints a table.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.lib.cells import CellFile, make_cell_parser
from experiments.lib.results import make_table
from experiments.lib.sizes import load_model_config
from ringrl.agents import AgentConfig
from ringrl.evaluation.figures import INK, PALETTE, new_figure, save_png, tidy
from ringrl.ops import AttentionConfig
from ringrl.parallel.mesh import MeshConfig
from ringrl.planning.cluster.targets import Target, fill_specification
from ringrl.planning.compile.process import compile_plan
from ringrl.planning.model.memory import Prediction, predict_memory
from ringrl.planning.plan import Plan
from ringrl.training.config import TrainingConfig

RESULTS = Path(__file__).parent / "results"
BLOCK = 1024  # of attention and feed-forward
LOSS_BLOCK = 512
GOAL = 0.10


@dataclasses.dataclass(frozen=True)
class Point:
    """A program: a size of conf/model with this many layers, on a target, by these options."""

    topology: str
    model: str
    layers: int  # 0: the size's own
    strategy: str
    dtype: str
    tokens: int  # of a chain
    chains: int = 1
    kernel: str = "auto"
    remat: str = "layer"
    blocks: bool = True  # of the feed-forward and of the loss
    block: int = BLOCK
    mesh: tuple[tuple[str, int], ...] = ()  # the default: all devices along ring, head or fsdp, as the strategy has it
    gradients: str = "float32"
    tokens_per_step: int = 1

    @property
    def name(self) -> str:
        """Unique, and short where the options are the common ones."""
        fields = dataclasses.fields(self)
        said = [str(getattr(self, field.name)) for field in fields[:6]]
        for field in fields[6:]:
            value = getattr(self, field.name)
            if value != field.default:
                value = "_".join(f"{axis}{size}" for axis, size in value) if field.name == "mesh" else value
                said.append(f"{field.name}={value}")
        return " ".join(said)

    @property
    def plan(self) -> Plan:
        """As the planner and the trainer take it."""
        model = load_model_config(self.model)
        model = dataclasses.replace(
            model,
            layers=self.layers or model.layers,
            remat=self.remat,
            feedforward_block_size=self.block if self.blocks else 0,
            unroll_layers=False,
        )
        axis = {"ring": "ring", "hybrid": "ring", "ulysses": "head"}.get(self.strategy, "fsdp")
        return Plan(
            target=fill_specification(Target(topology=self.topology)),
            tokens=self.tokens,
            agent=AgentConfig(tokens_per_step=self.tokens_per_step, loss_block_size=LOSS_BLOCK if self.blocks else 0),
            model=model,
            attention=AttentionConfig(
                self.strategy, kernel=self.kernel, query_block_size=self.block, key_block_size=self.block
            ),
            mesh=MeshConfig(**(dict(self.mesh) or {axis: -1})),
            training=TrainingConfig(batch_size=self.chains, precision=self.dtype, gradient_precision=self.gradients),
        )


POINTS = (
    Point("a100:1x8", "7b", 4, "ring", "bfloat16", 2**18),
    Point("a100:1x8", "7b", 4, "ring", "bfloat16", 2**16),
    Point("a100:1x8", "7b", 4, "ring", "float32", 2**18),
    Point("a100:1x8", "at_350m", 4, "ring", "bfloat16", 2**19),
    Point("h100:1x8", "13b", 2, "ring", "float32", 2**17),
    Point("a100:1x8", "7b", 2, "ulysses", "bfloat16", 2**17),
    Point("h100:1x8", "7b", 2, "hybrid", "bfloat16", 2**17, mesh=(("ring", 4), ("head", 2))),
    Point("a100:1x8", "7b", 2, "ring", "bfloat16", 2**17, chains=2, mesh=(("fsdp", 2), ("ring", 4))),
    Point("a100:1x8", "7b", 2, "blockwise", "bfloat16", 2**14, chains=8),
    Point("a100:1x8", "7b", 2, "dense", "bfloat16", 2**11, chains=8),
    Point("a100:1x8", "7b", 2, "ring", "bfloat16", 2**17, remat="attention"),
    Point("a100:1x8", "7b", 2, "ring", "bfloat16", 2**16, remat="dots"),
    Point("a100:1x8", "7b", 2, "ring", "bfloat16", 2**16, remat="none"),
    Point("a100:1x8", "7b", 2, "ring", "bfloat16", 2**17, remat="offload"),
    Point("a100:1x8", "7b", 2, "ring", "bfloat16", 2**17, blocks=False),
    Point("a100:1x8", "7b", 2, "ring", "bfloat16", 2**17, gradients="bfloat16"),
    Point("a100:1x8", "7b", 2, "ring", "float32", 2**16, tokens_per_step=4),
    Point("h100:1x8", "7b", 2, "ring", "bfloat16", 2**16, tokens_per_step=4),
    Point("a100:1x8", "7b", 0, "ring", "bfloat16", 2**20),
    Point("a100:1x8", "7b", 0, "ring", "float32", 2**19),
    Point("a100:1x8", "13b", 0, "ring", "float32", 2**18),
    Point("cpu:8", "small", 2, "ring", "float32", 2**16, block=512),
    Point("cpu:8", "small", 2, "ring", "bfloat16", 2**16, block=512),
    Point("v3:2x2", "7b", 2, "ring", "bfloat16", 2**17),
    Point("v3:4x4", "7b", 2, "ring", "float32", 2**18, kernel="xla", tokens_per_step=4),
    Point("v4:2x2x1", "7b", 4, "ring", "bfloat16", 2**17, kernel="xla"),
    Point("v4:2x2x2", "7b", 2, "ring", "bfloat16", 2**16, kernel="xla", tokens_per_step=4),
    Point("v5e:4x4", "7b", 2, "ring", "bfloat16", 2**17, tokens_per_step=4),
    Point("v4:2x2x1", "at_350m", 2, "ring", "float32", 2**18, kernel="xla"),
    Point("v5e:4x4", "3b", 2, "ring", "bfloat16", 2**19, kernel="xla"),
    Point("v4:8x8x8", "7b", 0, "ring", "bfloat16", 2**24),
)


def compiled(point: Point) -> dict[str, Any]:
    """A row: what the compiler says."""
    began = time.perf_counter()
    report = compile_plan(point.plan)
    return {
        "name": point.name,
        **dataclasses.asdict(point),
        "accepted": report.accepted,
        "refusal": report.refusal,
        "memory": None if report.memory is None else dataclasses.asdict(report.memory),
        "compilers": report.compilers,
        "seconds": time.perf_counter() - began,
    }


def point_of(row: dict[str, Any]) -> Point:
    """The program of a row."""
    fields = {field.name: row[field.name] for field in dataclasses.fields(Point)}
    return Point(**{**fields, "mesh": tuple((axis, size) for axis, size in row["mesh"])})


def error(row: dict[str, Any], said: Prediction) -> float:
    """Of the total, as a share of what the compiler reserves."""
    return said.total / _total(row) - 1.0


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown, a line a point."""
    header = ("point", "arguments, GiB", "formula", "temporaries, GiB", "formula", "total", "fullest while")
    lines = []
    for row in rows:
        said, memory = predict_memory(point_of(row).plan), row["memory"]
        arguments = memory["arguments"] + memory["outputs"] - memory["aliased"]
        figures = (arguments, said.arguments, memory["temporaries"] + memory["code"], said.temporaries)
        sizes = (f"{size / 2**30:.3f}" for size in figures)
        lines.append((row["name"], *sizes, f"{error(row, said):+.1%}", said.moment))
    return make_table(header, lines)


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Formula against compiler, a color a platform, within the goal's band."""
    figure = new_figure(5.4, 4.6)
    axes = figure.add_subplot()
    names = {"cuda": "A100, H100", "tpu": "TPU v3, v4, v5e", "cpu": "CPU"}
    sizes = []
    for color, (platform, label) in zip(PALETTE, names.items(), strict=False):
        chosen = [row for row in rows if point_of(row).plan.target.platform == platform]
        points = [(_total(row) / 2**30, predict_memory(point_of(row).plan).total / 2**30) for row in chosen]
        if points:
            reserved, said = zip(*points, strict=True)
            sizes += reserved
            axes.plot(reserved, said, color=color, linestyle="none", marker="o", markersize=5, label=label)
    ends = [min(sizes) / 1.5, max(sizes) * 1.5]
    axes.plot(ends, ends, color=INK, linewidth=1)
    axes.fill_between(
        ends, [end * (1 - GOAL) for end in ends], [end * (1 + GOAL) for end in ends], color=INK, alpha=0.1, linewidth=0
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("GiB a device, by the compiler")
    axes.set_ylabel("GiB a device, by the formula")
    axes.set_title("Band: within 10 %", loc="left", fontsize=10.5, color=INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    tidy(axes)
    return figure


def _total(row: dict[str, Any]) -> int:
    memory = row["memory"]
    return memory["arguments"] + memory["outputs"] - memory["aliased"] + memory["temporaries"] + memory["code"]


def main() -> None:
    """Compiles what is not known, then draws."""
    parser = make_cell_parser(__doc__)
    parser.add_argument("--no-compile", action="store_true", help="table and figure of what there is")
    asked = parser.parse_args()
    if asked.smoke:
        row = compiled(Point("cpu:8", "tiny", 2, "ring", "float32", 2**14, block=512))
        print(table([row]))
        return
    file = CellFile(RESULTS / "points.json", "memory_formula")
    if not asked.no_compile:
        file.fill({point.name: point for point in POINTS}, compiled, asked, lambda point: point.name)
    rows = [row for row in file.read().values() if row["memory"] is not None]
    print(table(rows))
    save_png(draw(rows), RESULTS / "predicted.png")
    errors = sorted((abs(error(row, predict_memory(point_of(row).plan))), row["name"]) for row in rows)
    print(f"{len(rows)} points; the worst is {errors[-1][0]:.1%} off: {errors[-1][1]}")


if __name__ == "__main__":
    main()
