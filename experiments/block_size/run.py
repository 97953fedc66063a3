"""The least tokens a device must hold for a hop to take no longer than its attention: the paper's Table 2, and others.

Arithmetic on peaks and nominal bandwidths (`ringrl.planning.cluster.targets`, by the rule of
`ringrl.planning.model.roofline`): nothing is measured. Every cluster of `ringrl plan target=NAME`, by the paper's rule
(all links of a device), with one link of a torus alone, and with half of the pairs masked.

Writes results/block_size.json and block_size.png and prints a table. `--smoke`: two clusters, and writes nothing.
"""

import dataclasses
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.lib.results import make_parser, make_table, write_results
from experiments.lib.sizes import list_targets
from ringrl.evaluation.figures import INK, PALETTE, new_figure, save_png, tidy
from ringrl.planning.cluster.targets import Target
from ringrl.planning.model.roofline import minimal_tokens
from ringrl.planning.report.paper import TABLE_3, K

RESULTS = Path(__file__).parent / "results"
TABLE_2 = {  # of the paper, thousands of tokens: minimal block, minimal sequence
    "a100x8": (1.0, 6.2),
    "a100x32": (24.5, 149.5),
    "tpu_v3_512": (1.1, 6.6),
    "tpu_v4_1024": (1.0, 6.2),
    "tpu_v5e_256": (1.1, 6.3),
}
MODEL = "7b"  # whose longest contexts of Table 3 are set beside


def clusters() -> list[Target]:
    """Every named one, less those of one device, which joins no ring."""
    named = [target for target in list_targets() if target.devices > 1]
    return sorted(named, key=lambda target: (target.name not in TABLE_2, target.platform, target.name))


def row(target: Target) -> dict[str, Any]:
    """Tokens a device."""
    between_machines = target.bandwidth != target.kind.bandwidth
    link = target.bandwidth if between_machines else target.kind.link_bandwidth
    found = minimal_tokens(target)
    contexts = TABLE_3.get(target.name, {}).get(MODEL)
    return {
        **dataclasses.asdict(target),
        "devices": target.devices,
        "link_bandwidth": link,
        "block": found.block,
        "sequence": found.sequence,
        "paper": TABLE_2.get(target.name),
        "block_causal": minimal_tokens(target, attended=0.5).block,
        "block_one_link": minimal_tokens(dataclasses.replace(target, bandwidth=link)).block,
        "paper_tokens_per_device": contexts.ring * K / target.devices if contexts else None,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown, thousands of tokens a device."""
    header = ("cluster", "TFLOP/s", "GB/s", "c", "6c", "paper's c, 6c", "c, causal", "GB/s, one link", "c, one link")
    lines = []
    for one in rows:
        paper = f"{one['paper'][0]}, {one['paper'][1]}" if one["paper"] else ""
        held = f"{one['paper_tokens_per_device'] / 1e3:.1f}" if one["paper_tokens_per_device"] else ""
        numbers = (f"{one['peak_flops'] / 1e12:g}", f"{one['bandwidth'] / 1e9:g}", f"{one['block'] / 1e3:.2f}")
        causal, link = f"{one['block_causal'] / 1e3:.2f}", f"{one['link_bandwidth'] / 1e9:g}"
        rest = (f"{one['sequence'] / 1e3:.1f}", paper, causal, link, f"{one['block_one_link'] / 1e3:.2f}", held)
        lines.append((one["name"], *numbers, *rest))
    return make_table((*header, "paper's 7B"), lines)


def draw(rows: list[dict[str, Any]]) -> Figure:
    """A line a cluster: what it needs by the paper's rule, six times that, with one link; what the paper trained."""
    figure = new_figure(8.6, 0.42 * len(rows) + 1.2)
    axes = figure.add_subplot()
    names = [one["name"] for one in rows][::-1]
    marks = (
        ("block", "c: peak FLOP/s over bandwidth of all links", "o"),
        ("sequence", "6c: what the paper asks of a device", "s"),
        ("block_one_link", "c with one link", "|"),
        ("paper_tokens_per_device", "the paper's longest 7B context", "D"),
    )
    for color, (key, label, marker) in zip(PALETTE, marks, strict=False):
        points = [(one[key], names.index(one["name"])) for one in rows if one[key]]
        values, places = zip(*points, strict=True)
        size = 140 if marker == "|" else 42
        axes.scatter(values, places, s=size, marker=marker, color=color, label=label, zorder=3, linewidths=2)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("Tokens of a chain on one device")
    tidy(axes)
    axes.grid(axis="x", color="#E6E6E6", linewidth=0.8)
    figure.legend(loc="outside upper left", frameon=False, fontsize=9, labelcolor=INK, ncols=2)
    return figure


def main() -> None:
    """All rows."""
    smoke = make_parser(__doc__).parse_args().smoke
    rows = [row(target) for target in clusters()[: 2 if smoke else None]]
    print(table(rows))
    if smoke:
        return
    write_results(RESULTS / "block_size.json", "block_size", model_of_contexts=MODEL, rows=rows)
    save_png(draw(rows), RESULTS / "block_size.png")


if __name__ == "__main__":
    main()
