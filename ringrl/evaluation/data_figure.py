"""A picture of a data set: how returns and lengths of its episodes are spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from ringrl.evaluation.figures import FAINT, PALETTE, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 40


def plot_episodes(
    returns: Float[np.ndarray, " episodes"], lengths: Int[np.ndarray, " episodes"], *, title: str
) -> Figure:
    """Two histograms side by side, each with its mean."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(10.0, 3.8)
    for index, (name, values) in enumerate((("Return", returns), ("Length, steps", lengths))):
        axes = figure.add_subplot(1, 2, index + 1)
        axes.hist(values, bins=BINS, color=PALETTE[index], linewidth=0)
        axes.axvline(float(values.mean()), color=FAINT, linewidth=1, dashes=(4, 3))
        axes.set_xlabel(name)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if not index:
            axes.set_ylabel("Episodes")
            axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
        tidy(axes)
    return figure
