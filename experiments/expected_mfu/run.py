"""The utilization (MFU) to expect where attention's share of the work grows: the rows of the paper's Table 4.

An expectation from assumed figures, never a measurement; no time is known to this script. The paper's reason: attention
runs at a lower MFU than matrices (feed-forward and projections), so that a longer context lowers the whole. Times add:

    1 / MFU = (1 - a) / MFU of matrices + a / MFU of attention, a being attention's share of the FLOPs

`--matrices-mfu` and `--attention-mfu` are the assumptions. FLOPs are those of the plan (`ringrl.planning.model.work`),
causal attention counted once; `--full-attention` counts masked pairs too, as the paper's ratio S / 6M does.

Writes results/expected_mfu.json and expected_mfu.png and prints tables. `--smoke`: one row, and writes nothing.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.lib.results import make_parser, make_table, write_results
from experiments.lib.sizes import load_model_config, load_target
from ringrl.agents import AgentConfig
from ringrl.evaluation.figures import INK, PALETTE, new_figure, save_png, tidy
from ringrl.ops import AttentionConfig
from ringrl.parallel.mesh import MeshConfig
from ringrl.planning.model.roofline import attention_ratio, expected_mfu
from ringrl.planning.model.work import Work, step_work
from ringrl.planning.plan import Plan
from ringrl.planning.report.paper import K
from ringrl.training.config import TrainingConfig

RESULTS = Path(__file__).parent / "results"
TABLE_4 = (  # model, cluster, thousands of tokens (1,024 each) blockwise and with the ring
    ("7b", "a100x8", 32, 256),
    ("13b", "a100x8", 16, 128),
    ("13b", "a100x32", 64, 2048),
    ("30b", "tpu_v4_1024", 16, 2048),
    ("65b", "tpu_v4_1024", 8, 1024),
)
RATIOS = (0.95, 0.9, 0.75, 0.5)  # of attention's MFU to that of matrices, beside the one asked for
BLOCK = 1024


def plan(model: str, cluster: str, tokens: int, *, ring: bool, layout: str = "zigzag") -> Plan:
    """One chain round all devices, or one on each of them."""
    target = load_target(cluster)
    devices = target.devices
    return Plan(
        target,
        tokens,
        agent=AgentConfig(loss_block_size=512),
        model=load_model_config(model),
        attention=AttentionConfig(
            "ring" if ring else "blockwise", layout, query_block_size=BLOCK, key_block_size=BLOCK
        ),
        mesh=MeshConfig(ring=devices) if ring else MeshConfig(fsdp=devices),
        training=TrainingConfig(batch_size=1 if ring else devices),
    )


def attention_share(work: Work, *, full: bool) -> float:
    """Of a step's FLOPs, nothing computed again counted."""
    attention = work.attention * (2 if full else 1)
    return attention / (attention + work.matrices)


def row(model: str, cluster: str, short: int, long: int, asked: argparse.Namespace) -> dict[str, Any]:
    """FLOPs, shares and expectations at the blockwise and at the ring's context."""
    width = load_model_config(model).width
    works = [step_work(plan(model, cluster, tokens * K, ring=tokens == long)) for tokens in (short, long)]
    contiguous = step_work(plan(model, cluster, long * K, ring=True, layout="contiguous"))
    shares = [attention_share(work, full=asked.full_attention) for work in works]
    expected = [
        expected_mfu(share, matrices_mfu=asked.matrices_mfu, attention_mfu=asked.attention_mfu) for share in shares
    ]
    by_ratio = {}
    for ratio in RATIOS:  # relative to matrices at 1
        first, second = (expected_mfu(share, matrices_mfu=1.0, attention_mfu=ratio) for share in shares)
        by_ratio[str(ratio)] = second / first
    return {
        "model": model,
        "cluster": cluster,
        "tokens": [short * K, long * K],
        "flops_per_token": [works[0].needed / works[0].devices / short / K, works[1].needed / long / K],
        "paper_ratio": [attention_ratio(width, tokens * K) for tokens in (short, long)],
        "attention_share": shares,
        "expected_mfu": expected,
        "long_over_short": expected[1] / expected[0],
        "long_over_short_by_ratio": by_ratio,
        "computed_over_needed": works[1].computed / works[1].needed,
        "balance": {"zigzag": works[1].balance, "contiguous": contiguous.balance},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    header = ("model, cluster", "context", "GFLOP a token", "attention's share", "MFU expected", "long over short")
    lines = []
    for one in rows:
        context = " -> ".join(f"{tokens // K:,}K" for tokens in one["tokens"])
        flops = " -> ".join(f"{value / 1e9:,.0f}" for value in one["flops_per_token"])
        shares = " -> ".join(f"{100 * value:.0f} %" for value in one["attention_share"])
        mfu = " -> ".join(f"{100 * value:.1f} %" for value in one["expected_mfu"])
        ratios = (f"{value:.3f}" for value in (one["long_over_short"], *one["long_over_short_by_ratio"].values()))
        lines.append((f"{one['model']}, {one['cluster']}", context, flops, shares, mfu, *ratios))
    return make_table((*header, *(f"at {ratio}" for ratio in RATIOS)), lines, left=5)


def draw(rows: list[dict[str, Any]], asked: argparse.Namespace) -> Figure:
    """Two bars a row."""
    figure = new_figure(8.6, 4.2)
    axes = figure.add_subplot()
    places = np.arange(len(rows))
    names = [
        f"{one['model'].upper()}\n{one['cluster']}\n{one['tokens'][0] // K:,}K, {one['tokens'][1] // K:,}K"
        for one in rows
    ]
    for index, label in enumerate(("blockwise, the shorter context", "ring, the longer one")):
        values = [100 * one["expected_mfu"][index] for one in rows]
        bars = axes.bar(places + 0.38 * (index - 0.5), values, 0.36, color=PALETTE[index], label=label)
        axes.bar_label(bars, fmt="%.1f", fontsize=8.5, color=INK, padding=2)
    axes.set_xticks(places, names)
    axes.set_ylabel("MFU expected, %")
    axes.set_ylim(0, 100 * asked.matrices_mfu * 1.25)
    axes.set_title(
        f"Expected, not measured: assumes {100 * asked.matrices_mfu:g} % for matrices, "
        f"{100 * asked.attention_mfu:g} % for attention",
        loc="left",
        fontsize=10.5,
        color=INK,
    )
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=2, loc="upper right")
    tidy(axes)
    return figure


def main() -> None:
    """All rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--matrices-mfu", type=float, default=0.40, help="assumed of feed-forward and projections")
    parser.add_argument("--attention-mfu", type=float, default=0.36, help="assumed of attention")
    parser.add_argument("--full-attention", action="store_true", help="count masked pairs too, as the paper does")
    asked = parser.parse_args()
    rows = [row(*one, asked) for one in TABLE_4[: 1 if asked.smoke else None]]
    print(table(rows))
    if asked.smoke:
        return
    about = {
        "kind": "an expectation from assumed figures, not a measurement",
        "assumed": {"matrices_mfu": asked.matrices_mfu, "attention_mfu": asked.attention_mfu},
        "counts_masked_pairs": asked.full_attention,
    }
    write_results(RESULTS / "expected_mfu.json", "expected_mfu", **about, rows=rows)
    save_png(draw(rows, asked), RESULTS / "expected_mfu.png")


if __name__ == "__main__":
    main()
