"""A figure of performance ratios by size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ringrl.evaluation.figures import FAINT, PALETTE, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_ratios(ratios: Mapping[str, Mapping[int, float]], *, title: str, ylabel: str) -> Figure:
    """Plot one line per entry of `{name: {tokens: ratio}}`, on a logarithmic axis of tokens, with a line at 1."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    figure = new_figure(7.4, 4.2)
    axes = figure.add_subplot()
    for index, (name, by_size) in enumerate(ratios.items()):
        color = PALETTE[index % len(PALETTE)]
        axes.plot(list(by_size), list(by_size.values()), "-o", color=color, linewidth=2, markersize=4.5, label=name)
    axes.axhline(1.0, color=FAINT, linewidth=1, dashes=(4, 3), zorder=1)
    sizes = sorted({size for by_size in ratios.values() for size in by_size})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size / 1024:g}K"))
    axes.set_ylim(bottom=0)
    axes.annotate(
        "equal",
        xy=(1, 1.0),
        xycoords=("axes fraction", "data"),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=FAINT,
    )
    axes.set_xlabel("Tokens of a chain")
    axes.set_ylabel(ylabel)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    tidy(axes)
    return figure
