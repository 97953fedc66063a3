"""The Ring Attention paper's Table 3 by the clusters' own compilers: the longest chain each method trains on.

For each cluster, model, method and precision: the largest power of two that is accepted, the smallest that is refused,
and why. Ring: one chain over all devices. The others: a chain on each device, parameters spread over all of them (the
paper's FSDP). All compute whole layers again in the backward pass; what else is a block at a time:

- vanilla: nothing; every score at once;
- memory_efficient: attention;
- blockwise: attention, feed-forward and loss;
- ring: the same, and the chain goes over all devices.

And the Agentic Transformer of 350M parameters with the ring, four tokens a step, in trajectories of 1,000 steps.

A cell takes minutes; each is written when it is done, and one that is in results/max_context.json is not compiled
again (`--again` does). `python experiments/max_context/run.py [--methods ring] [--clusters a100x8] ...`; `--table`
prints the tables of the README from the results, `--draw` the figure; `--smoke` compiles one tiny cell and writes
nothing.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from experiments.lib.cells import CellFile, make_cell_parser
from experiments.lib.results import make_table
from experiments.lib.sizes import load_model_config, load_target
from ringrl.agents import AgentConfig
from ringrl.data import data_root
from ringrl.evaluation.figures import FAINT, INK, PALETTE, new_figure, save_png, tidy
from ringrl.ops import AttentionConfig
from ringrl.planning.cluster.meshes import whole_cluster
from ringrl.planning.cluster.targets import Target, fill_specification
from ringrl.planning.compile.process import compile_plan
from ringrl.planning.model.memory import largest_context
from ringrl.planning.plan import Plan, Report
from ringrl.planning.report.figures import context_name
from ringrl.planning.report.paper import TABLE_3, K
from ringrl.planning.search import search_context
from ringrl.training.config import Precision, TrainingConfig

RESULTS = Path(__file__).parent / "results"
FILE = CellFile(RESULTS / "max_context.json", "max_context")
CLUSTERS = tuple(TABLE_3)
METHODS = ("ring", "blockwise", "memory_efficient", "vanilla")
AGENT = "at_350m"
BLOCK, SMALL_BLOCK = 1024, 512  # of attention and feed-forward; of the loss
LARGEST_BUFFERS = 4  # kept of each report


@dataclasses.dataclass(frozen=True)
class Cell:
    """Of the table."""

    cluster: str
    model: str  # of conf/model
    method: str
    precision: str

    @property
    def key(self) -> str:
        """In the results."""
        return "/".join(dataclasses.astuple(self))

    @property
    def tokens_per_step(self) -> int:
        """Four are the paper's of a step of the environment; the table of language models counts tokens."""
        return 4 if self.model == AGENT else 1

    def plan(self) -> Plan:
        """Of no tokens yet."""
        ring, blocks = self.method == "ring", self.method in ("ring", "blockwise")
        target = load_target(self.cluster)
        model = load_model_config(self.model)
        strategy = {"ring": "ring", "vanilla": "dense"}.get(self.method, "blockwise")
        attention = AttentionConfig(strategy, kernel="xla", query_block_size=BLOCK, key_block_size=BLOCK)
        return Plan(
            target=target,
            tokens=0,
            agent=AgentConfig(tokens_per_step=self.tokens_per_step, loss_block_size=SMALL_BLOCK if blocks else 0),
            model=dataclasses.replace(
                model, remat="layer", unroll_layers=False, feedforward_block_size=BLOCK if blocks else 0
            ),
            attention=attention,
            mesh=whole_cluster(attention.strategy, model.width, target.devices),
            training=TrainingConfig(batch_size=1 if ring else target.devices, precision=Precision(self.precision)),
        )


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Those asked for, the ring's first."""
    for method in options.methods:
        for precision in options.precisions:
            for cluster in options.clusters:
                models = [*TABLE_3[cluster], *([AGENT] if method == "ring" else [])]
                yield from (Cell(cluster, model, method, precision) for model in models if model in options.models)


def measured(cell: Cell) -> dict[str, Any]:
    """A row of the results."""
    plan = cell.plan()
    found = search_context(plan, lambda one: compile_plan(one, cache=data_root() / "plans"), largest_context(plan))
    return {
        **dataclasses.asdict(cell),
        "accepted": found.largest.tokens if found.largest else 0,
        "refused": found.refused.tokens if found.refused else None,
        "tokens_per_step": plan.tokens_per_step,
        "paper": paper_tokens(cell),
        "reports": [kept(report) for report in sorted(found.reports, key=lambda report: report.tokens)],
    }


def kept(report: Report) -> dict[str, Any]:
    """Of a report what a reader may ask for."""
    fields = dataclasses.asdict(report)
    fields["buffers"] = fields["buffers"][:LARGEST_BUFFERS]
    del fields["transfers"], fields["cached"]
    fields["hops"] = report.hop_count
    fields["hops_across_compute"] = report.hops_across_compute
    return fields


def paper_tokens(cell: Cell) -> int | None:
    """Of the same cell of the paper's Table 3, which is in full precision."""
    row = TABLE_3.get(cell.cluster, {}).get(cell.model)
    return None if row is None else getattr(row, cell.method) * K


def table(rows: dict[str, dict[str, Any]], precision: str) -> str:
    """Accepted (refused), and the paper's, by cluster and model: a column a method."""
    lines = []
    for cluster, models in TABLE_3.items():
        for model in models:
            texts = [_text(rows.get(Cell(cluster, model, method, precision).key)) for method in METHODS[::-1]]
            if any(texts):
                lines.append((cluster, model, *texts))
    return make_table(("cluster", "model", *METHODS[::-1]), lines, left=2)


def _text(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    accepted = context_name(row["accepted"]) if row["accepted"] else "none"
    refused = f", {context_name(row['refused'])} refused" if row["refused"] else ""
    return f"**{accepted}**{refused}; paper {context_name(row['paper'])}"


def agent_table(rows: dict[str, dict[str, Any]]) -> str:
    """Trajectories of 1,000 steps of four tokens, by cluster and precision."""
    precisions = tuple(Precision)
    lines = []
    for cluster in CLUSTERS:
        found = [rows.get(Cell(cluster, AGENT, "ring", precision).key) for precision in precisions]
        texts = [
            ""
            if row is None
            else f"{row['accepted'] / row['tokens_per_step'] / 1000:,.0f} ({context_name(row['accepted'])} tokens)"
            for row in found
        ]
        if any(texts):
            lines.append((cluster, *texts))
    return make_table(("cluster", *precisions), lines)


def hops_table(rows: dict[str, dict[str, Any]]) -> str:
    """Of the ring's hops at the longest chain, those that the schedule puts across compute."""
    precisions = tuple(Precision)
    lines = []
    for cluster, models in TABLE_3.items():
        for model in [*models, AGENT]:
            found = [rows.get(Cell(cluster, model, "ring", precision).key) for precision in precisions]
            lines.append((cluster, model, *map(_hops, found)))
    return make_table(("cluster", "model", *precisions), lines, left=2)


def _hops(row: dict[str, Any] | None) -> str:
    longest = [report for report in row["reports"] if report["tokens"] == row["accepted"]] if row else []
    return "".join(f"{report['hops_across_compute']:,} of {report['hops']:,}" for report in longest)


def draw(rows: dict[str, dict[str, Any]]) -> Figure:
    """The ring's contexts: a group a cluster and model; the paper's, float32 and bfloat16 beside each other."""
    names = [(cluster, model) for cluster, models in TABLE_3.items() for model in models]
    figure = new_figure(9.6, 4.6)
    axes = figure.add_subplot()
    kinds = (("the paper, full precision", FAINT), ("float32", PALETTE[0]), ("bfloat16", PALETTE[1]))
    for place, (cluster, model) in enumerate(names):
        found = [rows.get(Cell(cluster, model, "ring", precision).key) for precision in ("float32", "bfloat16")]
        heights = [TABLE_3[cluster][model].ring * K, *(row["accepted"] if row else 0 for row in found)]
        for index, (height, (label, color)) in enumerate(zip(heights, kinds, strict=True)):
            if height:
                axes.bar(place + 0.27 * (index - 1), height, 0.25, color=color, label=label if place == 0 else None)
    axes.set_yscale("log", base=2)
    axes.set_ylim(2**16)
    axes.yaxis.set_major_formatter(lambda value, _: context_name(int(value)))
    axes.set_xticks(range(len(names)), [f"{cluster}\n{model}" for cluster, model in names], fontsize=7.5)
    axes.set_ylabel("Tokens of a chain")
    axes.set_title("Longest chain that the cluster's compiler accepts, ring", loc="left", fontsize=10.5, color=INK)
    tidy(axes)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def main() -> None:
    """Cell after cell."""
    parser = make_cell_parser(__doc__)
    models = list(dict.fromkeys([model for row in TABLE_3.values() for model in row] + [AGENT]))
    for name, choices in (
        ("methods", METHODS),
        ("precisions", tuple(map(str, Precision))),
        ("clusters", CLUSTERS),
        ("models", models),
    ):
        parser.add_argument(f"--{name}", nargs="+", choices=choices, default=list(choices))
    for flag in ("table", "draw"):
        parser.add_argument(f"--{flag}", action="store_true", help="only tables and figure, of what there is")
    options = parser.parse_args()
    matplotlib.use("agg")
    if options.smoke:
        plan = dataclasses.replace(
            Cell("a100x8", "tiny", "ring", "float32").plan(), target=fill_specification(Target("", "cpu:8"))
        )
        report = compile_plan(plan.of(4096))
        print(json.dumps(kept(report), indent=1))
        return
    if not (options.table or options.draw):
        FILE.fill({cell.key: cell for cell in cells(options)}, measured, options, lambda cell: cell.key)
    rows = FILE.read()
    for precision in map(str, Precision):
        print(f"\n{precision}\n{table(rows, precision)}")
    print(f"\nAgentic Transformer, 350M\n{agent_table(rows)}\n\nHops across compute\n{hops_table(rows)}")
    save_png(draw(rows), RESULTS / "max_context.png")


if __name__ == "__main__":
    main()
