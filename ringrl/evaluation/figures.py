"""Figures of evaluation and training: return by trial with bands, and curves by training step."""

from __future__ import annotations

import dataclasses
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ringrl.files import write_atomically

if TYPE_CHECKING:  # Matplotlib takes a second to import, so only plotting functions do
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette for all kinds of color vision (jfly.uni-koeln.de/color), darkest first.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5D5D5D", "#A3820A")
AGENT_COLORS = {"AT": PALETTE[0], "DT": PALETTE[1], "BC-10%": PALETTE[2], "BC": PALETTE[3]}
DASHES = ("-", "--", ":", "-.")
INK, FAINT, GRID = "#222222", "#767676", "#E6E6E6"
LABEL_WIDTH = 26  # characters per line of a label beside a panel
DIRECT_LABELS = 8  # more curves than this get a legend


@dataclasses.dataclass(frozen=True)
class Curve:
    """Return by trial: mean and interval, each (n,); NaN if no trial ran."""

    label: str
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    earlier: Sequence[Sequence[float]] = ()  # means of earlier evaluations, each (n,), the first one first


def plot_trials(
    curves: Sequence[Curve],
    *,
    title: str = "",
    ylabel: str = "Return",
    references: Mapping[str, float] | None = None,
    note: str = "Mean and 95 % interval",
) -> Figure:
    """Plot return by trial, one curve with its band per group; `references` are dashed lines such as the optimum."""
    return plot_panels({title: curves}, ylabel=ylabel, references={title: references or {}}, note=note)


def plot_panels(
    panels: Mapping[str, Sequence[Curve]],
    *,
    ylabel: str | Mapping[str, str] = "Return",
    references: Mapping[str, Mapping[str, float]] | None = None,
    note: str = "Mean and 95 % interval",
    span: tuple[float, float] | None = None,
) -> Figure:
    """Plot one panel of return by trial per entry (an environment), two per row; a label has the same color in all.

    `ylabel` is for all panels, or one per panel; `span` is a range that every vertical axis covers at least.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(7.4 * columns if columns == 1 else 6.4 * columns, 4.4 * rows)
    labels = list(dict.fromkeys(curve.label for curves in panels.values() for curve in curves))
    styles = _styles(labels)
    for index, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw_trials(axes, curves, styles, (references or {}).get(title, {}), span)
        axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, pad=20 if note else 8)
        if note:
            axes.text(0, 1.025, note, transform=axes.transAxes, fontsize=8.5, color=FAINT, va="bottom")
        axes.set_ylabel(ylabel if isinstance(ylabel, str) else ylabel[title])
    return figure


Series = tuple[Sequence[float], Sequence[float]]  # steps, values


def plot_training_curves(
    history: Mapping[str, Series | Mapping[str, Series]], *, title: str = "", log: Sequence[str] = ()
) -> Figure:
    """Plot one panel per metric of `{name: (steps, values)}`: all values faint, a running mean strong.

    Several curves of one metric, `{name: {label: (steps, values)}}`, share its panel and so its axes. The metrics named
    in `log` get a logarithmic axis if all their values are positive and differ by a factor of 10.
    """
    from matplotlib.ticker import MaxNLocator

    columns = min(2, max(1, len(history)))
    rows = max(1, -(-len(history) // columns))
    figure = new_figure(6.4 if columns == 1 else 5.2 * columns, 3.3 * rows)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    for index, (name, found) in enumerate(history.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        curves = found if isinstance(found, Mapping) else {"": found}
        for number, (label, (steps, values)) in enumerate(curves.items()):
            _draw_history(axes, np.asarray(steps, float), np.asarray(values, float), PALETTE[index + number], label)
        numbers = np.concatenate([np.asarray(values, float) for _, values in curves.values()])
        numbers = numbers[np.isfinite(numbers)]
        logarithmic = name in log and numbers.size and numbers.min() > 0 and numbers.max() > 10 * numbers.min()
        if logarithmic:
            axes.set_yscale("log")
        if len(curves) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(curves), frameon=False, fontsize=9)
        name = f"{name[:1].upper()}{name[1:]}"
        axes.set_title(name, loc="left", fontsize=10.5, color=INK)
        axes.set_ylabel(f"{name}, logarithmic" if logarithmic else name)
        axes.set_xlabel("Training step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        tidy(axes)
    return figure


def _draw_history(axes: Axes, steps: np.ndarray, values: np.ndarray, color: str, label: str) -> None:
    marker = "o" if len(values) < 12 else ""
    axes.plot(steps, values, color=color, alpha=0.3, linewidth=1)
    smooth = _running_mean(values)
    axes.plot(steps, smooth, color=color, linewidth=2, marker=marker, markersize=4.5, label=label or None)


def save_png(figure: Figure, path: Path) -> Path:
    """Write a PNG atomically."""
    write_atomically(Path(path), png_bytes(figure))
    return Path(path)


def png_bytes(figure: Figure) -> bytes:
    """The figure as an encoded PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure with a size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _styles(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Color and dash per label: agents have fixed colors, other labels the rest of the palette."""
    own = {label: (AGENT_COLORS[label], DASHES[0]) for label in labels if label in AGENT_COLORS}
    others = [label for label in labels if label not in own]
    pairs = [(color, dash) for dash in DASHES for color in PALETTE if (color, dash) not in own.values()]
    return own | {label: pairs[index % len(pairs)] for index, label in enumerate(others)}


def _draw_trials(
    axes: Axes,
    curves: Sequence[Curve],
    styles: Mapping[str, tuple[str, str]],
    references: Mapping[str, float],
    span: tuple[float, float] | None = None,
) -> None:
    from matplotlib.ticker import MaxNLocator

    longest = max((len(curve.mean) for curve in curves), default=1)
    for curve in curves:
        mean, low, high = (np.asarray(x, float) for x in (curve.mean, curve.low, curve.high))
        trials = np.arange(1, len(mean) + 1)
        color, dash = styles[curve.label]
        if len(mean) == 1:
            bars = None if np.isnan([low, high]).any() else [mean - low, high - mean]
            axes.errorbar(trials, mean, bars, color=color, fmt="o", capsize=3, label=curve.label)
            continue
        for index, before in enumerate(curve.earlier):
            shade = 0.15 + 0.35 * index / max(len(curve.earlier) - 1, 1)  # later curves are stronger
            axes.plot(np.arange(1, len(before) + 1), np.asarray(before, float), color=color, alpha=shade, linewidth=1)
        axes.fill_between(trials, low, high, color=color, alpha=0.14, linewidth=0)
        marker = "o" if longest <= 20 else ""
        axes.plot(
            trials, mean, dash, color=color, linewidth=2, marker=marker, markersize=4.5, label=curve.label, zorder=3
        )
    tidy(axes)
    axes.set_xlabel("Trial in the context")
    if longest <= 16:
        axes.set_xticks(range(1, longest + 1))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, steps=[1, 2, 5, 10]))
    axes.set_xlim(0.7, max(longest, 2) + 0.3)
    for value in references.values():
        axes.axhline(value, color=FAINT, linewidth=1, dashes=(4, 3), zorder=1)
    if span is not None:
        axes.update_datalim([(1.0, span[0]), (1.0, span[1])], updatex=False)
    axes.margins(y=0.08)
    axes.autoscale_view(scalex=False)
    same_end = len({len(curve.mean) for curve in curves}) <= 1
    if same_end and longest > 1 and len(curves) + len(references) <= DIRECT_LABELS:
        _label_ends(axes, curves, styles, references)
    else:
        _legend(axes, curves)
        _label_lines(axes, references)


def _label_ends(
    axes: Axes, curves: Sequence[Curve], styles: Mapping[str, tuple[str, str]], references: Mapping[str, float]
) -> None:
    """Label every curve and reference at its right end, moved apart if closer than a line of text."""
    ends = [next((value for value in reversed(list(curve.mean)) if np.isfinite(value)), np.nan) for curve in curves]
    texts = [(_wrap(curve.label), styles[curve.label][0], "bold") for curve in curves]
    texts += [(_wrap(name), FAINT, "normal") for name in references]
    low, high = axes.get_ylim()
    heights = [(end - low) / (high - low) if np.isfinite(end) else 0.0 for end in [*ends, *references.values()]]
    lines = [1 + text.count("\n") for text, _, _ in texts]
    for (text, color, weight), place in zip(texts, _separate(heights, gap=0.062, sizes=lines), strict=True):
        axes.annotate(
            text,
            xy=(1.0, place),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            color=color,
            fontsize=10 if weight == "bold" else 9,
            fontweight=weight,
            va="center",
        )


def _legend(axes: Axes, curves: Sequence[Curve]) -> None:
    """A legend in the order of the curves: beside the panel, or under it if the labels are long."""
    handles, labels = axes.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    ordered = [by_label[curve.label] for curve in curves]
    widest = max((len(curve.label) for curve in curves), default=0)
    if not ordered:
        return
    if widest <= 22:
        axes.legend(
            handles=ordered, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9, handlelength=3
        )
    else:
        axes.legend(
            handles=ordered,
            loc="upper left",
            bbox_to_anchor=(0.0, 0.0),
            frameon=False,
            fontsize=8.5,
            handlelength=3,
            ncols=2 if widest <= 40 else 1,
            borderaxespad=4.6,  # in font sizes: below the axis label
        )


def _label_lines(axes: Axes, references: Mapping[str, float]) -> None:
    """Label the reference lines inside the panel, on a white halo."""
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import blended_transform_factory

    left = blended_transform_factory(axes.transAxes, axes.transData)
    halo = [withStroke(linewidth=3, foreground="white")]
    for name, value in references.items():
        axes.text(
            0.012, value, name, transform=left, color=FAINT, fontsize=8.5, va="bottom", path_effects=halo, zorder=4
        )


def _wrap(label: str) -> str:
    """Wrap a label into lines short enough to fit beside a panel."""
    return "\n".join(textwrap.wrap(label, LABEL_WIDTH)) or label


def _separate(heights: Sequence[float], gap: float, sizes: Sequence[int] | None = None) -> list[float]:
    """The nearest heights in the same order that are at least `gap` apart: overlapping neighbors are pooled."""
    sizes = [1] * len(heights) if sizes is None else sizes
    order = np.argsort(heights, kind="stable")
    groups: list[tuple[float, list[int]]] = []  # center, members from the lowest up
    for index in order:
        groups.append((heights[index], [int(index)]))
        while len(groups) > 1:
            (below, lower), (above, upper) = groups[-2:]
            low, high = (sum(sizes[i] for i in members) for members in (lower, upper))
            if above - below >= gap * (low + high) / 2:
                break
            groups[-2:] = [((below * low + above * high) / (low + high), lower + upper)]
    places = [0.0] * len(heights)
    for center, members in groups:
        foot = center - gap * sum(sizes[i] for i in members) / 2
        for index in members:
            places[index] = foot + gap * sizes[index] / 2
            foot += gap * sizes[index]
    return places


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over a centered window of about a twentieth of the curve; NaN are ignored."""
    half = len(values) // 40
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    index = np.arange(len(values))
    start, stop = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    number = counts[stop] - counts[start]
    return np.where(number > 0, (sums[stop] - sums[start]) / np.maximum(number, 1), np.nan)


def tidy(axes: Axes) -> None:
    """Style the axes with faint lines and without a frame at the top and right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#BBBBBB")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9, length=3, color="#BBBBBB")
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
