"""A figure of a data set: the distributions of its episodes' returns and lengths."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from ringrl.evaluation.figures import FAINT, INK, PALETTE, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 40
LEAST_SPAN = 10.0  # of an integer axis, so that a single value is drawn as one bar


def plot_episodes(
    returns: Float[np.ndarray, " episodes"], lengths: Int[np.ndarray, " episodes"], *, title: str
) -> Figure:
    """Two histograms side by side, each with its mean."""
    figure = new_figure(10.0, 3.8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    for index, (name, unit, values) in enumerate((("Return", "", returns), ("Length", " steps", lengths))):
        axes = figure.add_subplot(1, 2, index + 1)
        _draw_histogram(axes, np.asarray(values, np.float64), PALETTE[index], unit)
        axes.set_xlabel(f"{name} of an episode{',' * bool(unit)}{unit}")
        axes.set_ylabel("Episodes")
        tidy(axes)
    return figure


def bin_edges(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " edges"]:
    """Edges of about 40 bins; for integers each bin spans the same number, so that none is systematically empty.

    If all values are equal there is one bin.
    """
    low, high = float(values.min()), float(values.max())
    if (values == np.round(values)).all():
        width = max(1, math.ceil((high - low + 1) / BINS))
        return low - 0.5 + width * np.arange(math.ceil((high - low + 1) / width) + 1)
    return np.histogram_bin_edges(values, BINS)


def _draw_histogram(axes: Axes, values: np.ndarray, color: str, unit: str) -> None:
    from matplotlib.ticker import MaxNLocator

    edges = bin_edges(values)
    axes.hist(values, bins=edges.tolist(), color=color, linewidth=0)
    whole = bool((values == np.round(values)).all())
    if whole and edges[-1] - edges[0] < LEAST_SPAN:
        middle = (edges[0] + edges[-1]) / 2
        axes.set_xlim(middle - LEAST_SPAN / 2, middle + LEAST_SPAN / 2)
    mean = float(values.mean())
    axes.axvline(mean, color=INK, linewidth=1, dashes=(4, 3))
    axes.set_title(f"dashed: mean {mean:.4g}{unit}", loc="right", fontsize=9, color=FAINT)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=whole))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
