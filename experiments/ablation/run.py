"""What each part of the ring is for: the 7B step of 8 x A100, and of a TPU v3 slice, with one thing taken away.

Compiled by the targets' own compilers, so exact: memory of a device, and how many of the ring's hops the schedule puts
across compute. On paper, exact too: FLOPs computed, and those of the critical path, in which every device waits for the
slowest at every hop. Nothing runs, and no time is measured.

Each row is written when it is done; one that is in results/ablation.json is not compiled again (`--again` does).
`--smoke`: two rows, small, on two virtual CPUs, and writes nothing.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.lib.cells import CellFile, digest_settings, make_cell_parser
from experiments.lib.results import make_table
from experiments.lib.sizes import load_model_config
from ringrl.agents import AgentConfig
from ringrl.data import data_root
from ringrl.evaluation.figures import FAINT, INK, PALETTE, new_figure, save_png, tidy
from ringrl.ops import AttentionConfig
from ringrl.parallel.mesh import MeshConfig
from ringrl.planning.cluster.targets import Target, fill_specification
from ringrl.planning.compile.process import compile_plan
from ringrl.planning.model.work import step_work
from ringrl.planning.plan import Plan, Report
from ringrl.training.config import Precision, TrainingConfig

RESULTS = Path(__file__).parent / "results"
GIB = 2**30
# TPU v3 and GPUs schedule transfers one after the other by default: for these the trainer sets flags.
CASES = {
    "a100x8": (Target("a100x8", "a100:8"), 512 * 1024),
    "tpu_v3_32": (Target("tpu_v3_32", "v3:4x4"), 256 * 1024),
}
SERIAL = {
    "cuda": {
        "xla_gpu_experimental_parallel_collective_overlap_limit": 1,
        "xla_gpu_enable_latency_hiding_scheduler": False,
    },
    "tpu": {"xla_enable_async_collective_permute": False},
    "cpu": {},
}


def whole(target: Target, tokens: int, model: str = "7b") -> Plan:
    """Nothing taken away."""
    sizes = {"remat": "layer", "unroll_layers": False, "feedforward_block_size": 1024}
    plan = Plan(
        target=fill_specification(target),
        tokens=tokens,
        agent=AgentConfig(loss_block_size=512),
        model=dataclasses.replace(load_model_config(model), **sizes),
        attention=AttentionConfig("ring", "zigzag", query_block_size=1024, key_block_size=1024),
        training=TrainingConfig(batch_size=1, precision=Precision.bfloat16),
    )
    return plan.of(tokens)


def variants(plan: Plan) -> dict[str, Plan]:
    """The plan, and the same with one thing taken away or set wrong."""

    def attention(**changes: Any) -> Plan:
        return dataclasses.replace(plan, attention=dataclasses.replace(plan.attention, **changes))

    def model(**changes: Any) -> Plan:
        return dataclasses.replace(plan, model=dataclasses.replace(plan.model, **changes))

    def blocks(size: int) -> Plan:
        return attention(query_block_size=size, key_block_size=size)

    alone = attention(strategy="blockwise", layout="contiguous")
    devices = plan.target.devices
    return {
        "whole": plan,
        "without ring": dataclasses.replace(
            alone, mesh=MeshConfig(fsdp=-1), training=dataclasses.replace(plan.training, batch_size=devices)
        ),
        "without overlap": dataclasses.replace(plan, compiler_options=SERIAL[plan.target.platform]),
        "contiguous layout": attention(layout="contiguous"),
        "striped layout": attention(layout="striped"),
        "blocks of 128": blocks(128),
        "blocks of 4096": blocks(4096),
        "without blockwise feed-forward": model(feedforward_block_size=0),
        "without chunked loss": dataclasses.replace(plan, agent=dataclasses.replace(plan.agent, loss_block_size=0)),
        "without remat": model(remat="none"),
    }


def row(name: str, plan: Plan, report: Report) -> dict[str, Any]:
    """What became of it. FLOPs are a device's and a chain's, so that a batch of chains compares with one chain."""
    work = step_work(plan)
    per_chain = plan.chains * plan.target.devices
    return {
        "variant": name,
        "tokens": plan.tokens,
        "chains": plan.chains,
        "accepted": report.accepted,
        "refusal": report.refusal,
        "memory": None if report.memory is None else dataclasses.asdict(report.memory),
        "total_bytes": None if report.memory is None else report.memory.total,
        "limit_bytes": report.limit,
        "hops": report.hop_count,
        "hops_across_compute": report.hops_across_compute,
        "flops_computed": work.computed / per_chain,
        "flops_critical_path": work.critical_path / plan.chains,
        "compilers": report.compilers,
        "seconds": report.seconds,
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """In Markdown; FLOPs relative to the whole's."""
    lines = []
    first = rows["whole"]
    for name, found in rows.items():
        total = found["total_bytes"]
        size = (f"{total / GIB:.1f}", f"{total / found['limit_bytes']:.0%}") if total else ("refused", "")
        hops = f"{found['hops_across_compute']:,} of {found['hops']:,}" if found["hops"] else "—"
        shares = (f"{found[key] / first[key]:.2f}" for key in ("flops_computed", "flops_critical_path"))
        lines.append((name, *size, hops, *shares))
    header = ("variant", "GiB a device", "of the limit", "hops across compute", "FLOPs computed", "critical path")
    return make_table(header, lines)


def draw(cases: dict[str, dict[str, dict[str, Any]]]) -> Figure:
    """Memory of a device, a panel a target; what the compiler refused says so."""
    figure = new_figure(5.4 * len(cases), 4.6)
    for index, (case, rows) in enumerate(cases.items()):
        axes = figure.add_subplot(1, len(cases), index + 1)
        names = list(rows)[::-1]
        limit = next(iter(rows.values()))["limit_bytes"] / GIB
        for place, name in enumerate(names):
            total = rows[name]["total_bytes"]
            color = PALETTE[0] if name == "whole" else PALETTE[5]
            shown = min(total / GIB, 2.5 * limit) if total else 0
            axes.barh(place, shown, color=color)
            axes.text(shown, place, f" {total / GIB:.1f}" if total else " refused", va="center", fontsize=8, color=INK)
        axes.axvline(limit, color=PALETTE[1], linewidth=1.5, label=f"limit, {limit:.1f} GiB")
        axes.set_yticks(range(len(names)), names if index == 0 else [""] * len(names), fontsize=8.5)
        axes.set_xlim(0, 2.9 * limit)
        axes.set_xlabel("GiB a device")
        axes.set_title(f"7b, {rows['whole']['tokens'] // 1024}K tokens, {case}", loc="left", fontsize=10.5, color=INK)
        tidy(axes)
        axes.legend(frameon=False, fontsize=8.5, labelcolor=FAINT, loc="lower right")
    return figure


def main() -> None:
    """Row after row."""
    parser = make_cell_parser(__doc__)
    parser.add_argument("--targets", nargs="+", choices=list(CASES), default=list(CASES))
    options = parser.parse_args()
    if options.smoke:
        plan = whole(Target("", "cpu:2"), 4096, "tiny")
        for name in ("whole", "contiguous layout"):
            print(json.dumps(row(name, plan, compile_plan(variants(plan)[name]))))
        return
    file, found = CellFile(RESULTS / "ablation.json", "ablation"), {}
    for case in options.targets:
        plan = whole(*CASES[case])
        rows = file.fill(
            {f"{case}/{name}": (name, changed) for name, changed in variants(plan).items()},
            lambda cell: row(*cell, compile_plan(cell[1], cache=data_root() / "plans")),
            options,
            lambda cell: digest_settings(cell[1].to_json()),
        )
        found[case] = {key.partition("/")[2]: cell for key, cell in rows.items()}
        if "whole" in found[case]:
            print(f"\n{case}, 7b, bfloat16, {plan.tokens:,} tokens\n{table(found[case])}")
    if all("whole" in rows for rows in found.values()):
        save_png(draw(found), RESULTS / "ablation.png")


if __name__ == "__main__":
    main()
