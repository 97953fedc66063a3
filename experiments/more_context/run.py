"""What each option of the trainer spares of a device's memory, as the compilers of GPUs and TPUs report it.

One step on one chain, by the ring, with matrices of the 7B model but few layers, so that a cell compiles in about a
minute. Every cell is the starting point (`START`) but for the options that it names: one compilation, whose report goes
into results/memory.json as soon as it is there. A cell that is in there is not compiled again, unless `--again`.

Writes results/memory.json and memory.png and prints tables. `--smoke`: one small cell for this machine's CPU, and
writes nothing.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.lib.cells import CellFile, make_cell_parser
from experiments.lib.results import make_table
from ringrl.agents import AgentConfig
from ringrl.evaluation.figures import INK, PALETTE, new_figure, save_png, tidy
from ringrl.nn import ModelConfig, Remat
from ringrl.nn.config import Feedforward
from ringrl.ops import AttentionConfig, Kernel, Layout, Strategy
from ringrl.parallel.mesh import MeshConfig
from ringrl.planning.cluster.targets import Target, fill_specification
from ringrl.planning.compile.process import compile_plan
from ringrl.planning.plan import Plan, Report
from ringrl.training.config import Precision, TrainingConfig

RESULTS = Path(__file__).parent / "results"
GIBIBYTE = 2**30


@dataclasses.dataclass(frozen=True)
class Cell:
    """Options of a step; those that a name leaves out are as at the start."""

    topology: str
    layers: int
    tokens_per_device: int
    remat: str = "layer"
    feedforward_blocks: int = 1024
    loss_blocks: int = 512
    precision: str = "bfloat16"
    gradient_precision: str = "float32"

    @property
    def key(self) -> str:
        """Of the results file."""
        return " ".join(f"{name}={value}" for name, value in dataclasses.asdict(self).items())


START = Cell("a100:1x8", 4, 65_536)
OPTIONS: dict[str, dict[str, Any]] = {
    "start": {},
    "remat=offload": {"remat": "offload"},
    "remat=attention": {"remat": "attention"},
    "remat=dots": {"remat": "dots"},
    "remat=none": {"remat": "none"},
    "no feed-forward blocks": {"feedforward_blocks": 0},
    "no loss blocks": {"loss_blocks": 0},
    "neither": {"feedforward_blocks": 0, "loss_blocks": 0},
    "bfloat16 gradients": {"gradient_precision": "bfloat16"},
    "offload, bfloat16 gradients": {"remat": "offload", "gradient_precision": "bfloat16"},
    "float32": {"precision": "float32"},
}
DEEPER = {name: OPTIONS[name] for name in ("start", "remat=offload", "bfloat16 gradients")}
SERIES: tuple[tuple[Cell, dict[str, dict[str, Any]]], ...] = (
    (START, OPTIONS),
    (dataclasses.replace(START, layers=8), DEEPER),  # what a layer adds is the difference
    (dataclasses.replace(START, topology="v4:2x2x1"), DEEPER),
)
SMOKE = Cell("cpu:2", 1, 64)


def plan_of(
    cell: Cell, *, width: int = 4096, feedforward_width: int = 11008, heads: int = 32, block: int = 1024
) -> Plan:
    """The training step of a cell; sizes are those of conf/model/7b.yaml unless told otherwise."""
    model = ModelConfig(
        layers=cell.layers,
        width=width,
        heads=heads,
        feedforward=Feedforward.swiglu,
        feedforward_width=feedforward_width,
        feedforward_block_size=cell.feedforward_blocks,
        remat=Remat(cell.remat),
        unroll_layers=False,
    )
    target = fill_specification(Target(topology=cell.topology))
    return Plan(
        target=target,
        tokens=cell.tokens_per_device * target.devices,
        agent=AgentConfig(loss_block_size=cell.loss_blocks),
        model=model,
        attention=AttentionConfig(
            Strategy.ring, Layout.contiguous, query_block_size=block, key_block_size=block, kernel=Kernel.xla
        ),
        mesh=MeshConfig(ring=-1),
        training=TrainingConfig(
            batch_size=1,
            precision=Precision(cell.precision),
            gradient_precision=Precision(cell.gradient_precision),
        ),
    )


def row_of(name: str, cell: Cell, report: Report) -> dict[str, Any]:
    """What is kept of a report."""
    memory = None if report.memory is None else {**dataclasses.asdict(report.memory), "total": report.memory.total}
    sent: dict[str, float] = {}
    for transfer in report.transfers:
        sent[transfer.kind] = sent.get(transfer.kind, 0.0) + transfer.bytes
    return {
        "name": name,
        **dataclasses.asdict(cell),
        "memory": memory,
        "refusal": "" if report.memory is not None else report.refusal,
        "bytes_sent": sent,
        "seconds": round(report.seconds, 1),
        "compilers": report.compilers,
        "flags": report.flags,
        "device_kind": report.device_kind,
    }


def fill(options: argparse.Namespace, compile_cell: Callable[[Cell], Report]) -> list[dict[str, Any]]:
    """All rows, those from the file that are in it and the others compiled."""
    named = [(name, dataclasses.replace(start, **changed)) for start, some in SERIES for name, changed in some.items()]
    found = CellFile(RESULTS / "memory.json", "more_context").fill(
        {cell.key: (name, cell) for name, cell in named},
        lambda one: row_of(*one, compile_cell(one[1])),
        options,
        lambda one: one[1].key,
    )
    return list(found.values())


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown: a line a cell, with what it takes more (+) or less (-) than its series' start."""
    header = ("options", "temporaries", "more than start", "arguments", "in host memory", "reduce-scatters sent")
    lines, start = [], None
    for row in rows:
        memory = row["memory"]
        if row["name"] == "start":
            start = memory
            lines.append((f"**{row['topology']}, {row['layers']} layers**", *[""] * 5))
        if memory is None:
            lines.append((row["name"], row["refusal"], *[""] * 4))
            continue
        more = "" if start is None else f"{(memory['temporaries'] - start['temporaries']) / GIBIBYTE:+.2f}"
        numbers = (memory["arguments"], memory["host"], row["bytes_sent"].get("reduce-scatter", 0.0))
        figures = (f"{number / GIBIBYTE:.2f}" for number in numbers)
        lines.append((row["name"], f"{memory['temporaries'] / GIBIBYTE:.2f}", more, *figures))
    return make_table(header, lines)


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Temporaries of each cell of the first series, a bar each, and beside them what went to the host."""
    shown = [row for row in rows if row["memory"] is not None and _is_of(row, START)]
    figure = new_figure(7.2, 0.38 * len(shown) + 1.2)
    axes = figure.add_subplot(1, 1, 1)
    device = [row["memory"]["temporaries"] / GIBIBYTE for row in shown]
    host = [row["memory"]["host"] / GIBIBYTE for row in shown]
    places = range(len(shown))
    axes.barh(places, device, color=PALETTE[0], height=0.62, label="on the device")
    axes.barh(places, host, left=device, color=PALETTE[1], height=0.62, label="in the host's memory")
    axes.set_yticks(places, [row["name"] for row in shown])
    axes.invert_yaxis()
    for place, (on_device, on_host) in enumerate(zip(device, host, strict=True)):
        axes.text(on_device + on_host, place, f" {on_device:.1f}", va="center", fontsize=9, color=INK)
    axes.set_xlabel("Temporary memory a device, GiB")
    title = f"{START.topology}, 7B's width, {START.layers} layers, {START.tokens_per_device // 1024}K tokens a device"
    axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    tidy(axes)
    return figure


def _is_of(row: dict[str, Any], start: Cell) -> bool:
    return (row["topology"], row["layers"]) == (start.topology, start.layers)


def main() -> None:
    """Compiles what is not there yet, then draws."""
    asked = make_cell_parser(__doc__).parse_args()
    if asked.smoke:
        small = plan_of(SMOKE, width=32, feedforward_width=64, heads=4, block=32)
        print(table([row_of("start", SMOKE, compile_plan(small))]))
        return
    rows = fill(asked, lambda cell: compile_plan(plan_of(cell)))
    print(table(rows))
    save_png(draw(rows), RESULTS / "memory.png")


if __name__ == "__main__":
    main()
