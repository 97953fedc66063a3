"""Figures of a plan: memory of a device by kind, against the context or by choice, with its limit."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from ringrl.evaluation.figures import FAINT, GRID, INK, PALETTE, new_figure, tidy
from ringrl.planning.cluster.targets import GIB
from ringrl.planning.plan import Memory, Report
from ringrl.planning.search import Candidate

COLORS = {
    "arguments": PALETTE[0],
    "temporaries": PALETTE[5],
    "outputs beyond aliased": PALETTE[3],
    "code": PALETTE[6],
}
LABELS = {"arguments": "Arguments: parameters,\noptimizer and batch"}
FORMULA = PALETTE[1]
HATCH = "////"
SHOWN = 0.01  # of the largest total: smaller kinds are not in the legend
BAR, LEAST_GAP = 0.62, 0.8  # in units of a doubling of the context
HEADROOM = 1.7  # maximum of the axis, as a multiple of the limit
# From libtpu's refusals: "Used 58.81G of 30.75G hbm", "HLO temporaries (54.13G) exceeds available HBM (15.25G)".
_USED = re.compile(r"(?:\bUsed |\btemporaries \()([\d.]+)([KMGT])")


def sum_by_kind(memory: Memory) -> dict[str, int]:
    """Bytes by kind, whose sum is `memory.total`."""
    return {
        "arguments": memory.arguments,
        "temporaries": memory.temporaries,
        "outputs beyond aliased": memory.outputs - memory.aliased,
        "code": memory.code,
    }


def context_name(tokens: int) -> str:
    """Format a context as `32,768K` if it is a multiple of 1,024 tokens, else as the number."""
    return f"{tokens:,}" if tokens % 1024 else f"{tokens // 1024:,}K"


def find_required_bytes(report: Report) -> float | None:
    """Bytes of a device that the program needs, or a lower bound if it was refused; None if unknown."""
    if report.memory is not None:
        return report.memory.total
    used = _USED.search(report.refusal)
    return None if used is None else float(used.group(1)) * 1024 ** (1 + "KMGT".index(used.group(2)))


def format_required_gib(report: Report, digits: int = 2) -> str:
    """Format them in GiB: `30.06`, `≥ 54.13` for a refusal, or empty."""
    total = find_required_bytes(report)
    least = "≥ " if report.memory is None else ""
    return "" if total is None else f"{least}{total / GIB:.{digits}f}"


def plan_figure(
    reports: Sequence[Report],
    *,
    title: str,
    predicted: Mapping[int, Mapping[str, float]] | None = None,
    limit: int = 0,
) -> Figure:
    """Plot the memory of a device by kind against the context, with the limit; `predicted`: tokens -> bytes by term.

    A refusal is a hatched bar, up to the limit unless the compiler reported more. `limit` (bytes) is for a figure
    without reports.
    """
    reports = list({report.tokens: report for report in reports}.values())
    formula = {tokens: sum(terms.values()) for tokens, terms in sorted((predicted or {}).items())}
    tokens = sorted({report.tokens for report in reports} | set(formula))
    places = dict(zip(tokens, _places(tokens), strict=True))
    limit = max([limit, *(report.limit for report in reports)])
    top = _top(limit, reports, formula)
    figure = new_figure(max(8.2, 2.6 + 0.9 * len(tokens)), 4.6)
    axes = figure.add_subplot()
    for report in reports:
        _upright_bar(axes, report, places[report.tokens])
    if formula:
        x = [places[count] for count in formula]
        axes.plot(x, [total / GIB for total in formula.values()], "-o", color=FORMULA, linewidth=2, markersize=4.5)
    sizes = {count: f"{total / GIB:.1f} GiB" for count, total in formula.items() if not reports}
    sizes |= {report.tokens: _size(report) for report in reports}
    axes.set_xticks([*places.values()], [f"{context_name(count)}\n{sizes.get(count, '')}" for count in tokens])
    axes.set_xlim(-0.7, max(places.values(), default=0) + 0.7)
    axes.set_ylim(0, top / GIB)
    axes.set_xlabel("Tokens of a chain")
    axes.set_ylabel("GiB of one device")
    _finish(axes, reports, title, formula=bool(formula))
    if limit:
        axes.axhline(limit / GIB, color=INK, linewidth=1.3, dashes=(5, 3), zorder=4)
        _draw_text(axes, axes.get_xlim()[1], limit / GIB, f"limit\n{limit / GIB:.2f} GiB", right=6)
    return figure


def candidates_figure(candidates: Sequence[Candidate], *, title: str) -> Figure:
    """Plot the memory of a device by kind, a bar per choice, with the limit; choices not compiled have the reason."""
    reports = [candidate.report for candidate in candidates if candidate.report is not None]
    limit = max((report.limit for report in reports), default=0)
    top = _top(limit, reports, {})
    figure = new_figure(8.2, max(1.6 + 0.42 * len(candidates), 3.0))
    axes = figure.add_subplot()
    for row, candidate in enumerate(candidates):
        if candidate.report is None:
            _draw_text(axes, 0, row, _short(candidate.reason), right=4, color=FAINT)
        else:
            _lying_bar(axes, candidate.report, row, top)
    axes.set_yticks(range(len(candidates)), [candidate.name for candidate in candidates])
    axes.set_ylim(len(candidates) - 0.4, -1.0 if limit else -0.6)
    axes.set_xlim(0, top / GIB)
    axes.set_xlabel("GiB of one device")
    _finish(axes, reports, title, formula=False)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    if limit:
        axes.axvline(limit / GIB, color=INK, linewidth=1.3, dashes=(5, 3), zorder=4)
        _draw_text(axes, limit / GIB, -0.72, f"limit {limit / GIB:.2f} GiB", ha="right", right=-5)
    return figure


def _places(tokens: Sequence[int]) -> list[float]:
    """Horizontal positions of contexts: proportional to log2, but far enough apart that labels do not overlap."""
    gaps = np.maximum(np.diff(np.log2(np.asarray(tokens, float))), LEAST_GAP)
    return [0.0, *np.cumsum(gaps).tolist()][: len(tokens)]


def _upright_bar(axes: Axes, report: Report, place: float) -> None:
    for height, base, looks in _find_segments(report):
        axes.bar(place, height / GIB, BAR, base / GIB, **looks)
    if not report.accepted:
        _draw_text(
            axes,
            place,
            min(find_required_bytes(report) or report.limit, report.limit) / 2 / GIB,
            _judged(report),
            ha="center",
        )


def _lying_bar(axes: Axes, report: Report, row: int, top: float) -> None:
    for width, base, looks in _find_segments(report):
        axes.barh(row, width / GIB, BAR, base / GIB, **looks)
    words = ", ".join(word for word in (_judged(report).replace("\n", " "), _size(report)) if word)
    end = find_required_bytes(report) or report.limit
    if end > 0.75 * top:  # no room beyond it
        _draw_text(axes, min(end, top) / GIB, row, words, ha="right", right=-6)
    else:
        _draw_text(axes, end / GIB, row, words, right=5)


def _find_segments(report: Report) -> list[tuple[float, float, dict]]:
    """Height, base (bytes) and style of the segments of a bar."""
    over = {} if report.accepted else {"hatch": HATCH, "alpha": 0.55}
    if report.memory is None:
        looks = {"facecolor": "#F3F3F3", "edgecolor": "#A0A0A0", "hatch": HATCH, "linewidth": 0.8}
        return [(find_required_bytes(report) or report.limit, 0, looks)]
    pieces, base = [], 0
    for kind, size in sum_by_kind(report.memory).items():
        pieces.append((size, base, {"color": COLORS[kind], "edgecolor": "white", "linewidth": 0.6, **over}))
        base += size
    return pieces


def _judged(report: Report) -> str:
    return "" if report.accepted else "refused" if report.memory is None else "over the\nlimit"


def _size(report: Report) -> str:
    size = format_required_gib(report, digits=1)
    return f"{size} GiB" if size else ""


def _top(limit: float, reports: Sequence[Report], formula: Mapping[int, float]) -> float:
    """The upper end of the axis in bytes: above everything drawn, but not far beyond the limit."""
    highest = max([limit, *(find_required_bytes(report) or 0 for report in reports), *formula.values()]) or GIB
    return min(1.15 * highest, HEADROOM * limit) if limit else 1.15 * highest


def _finish(axes: Axes, reports: Sequence[Report], title: str, *, formula: bool) -> None:
    """Add the title, the compilers' versions under it, and the legend."""
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, pad=20)
    versions = {name: version for report in reports for name, version in report.compilers.items()}
    note = "As reported by " + ", ".join(f"{name} {version}" for name, version in versions.items())
    if not reports:
        note = "By the formula: no compiler was asked"
    if versions or not reports:
        axes.text(0, 1.025, note, transform=axes.transAxes, fontsize=8.5, color=FAINT, va="bottom")
    known = [report.memory for report in reports if report.memory is not None]
    largest = max((memory.total for memory in known), default=0)
    shown = [kind for kind in COLORS if any(sum_by_kind(memory)[kind] > SHOWN * largest for memory in known)]
    handles: list = [Patch(color=COLORS[kind], label=LABELS.get(kind, kind.capitalize())) for kind in reversed(shown)]
    failed = dict.fromkeys(_judged(report).replace("\n", " ") for report in reports if not report.accepted)
    if failed:
        label = " or ".join(failed).capitalize()
        handles.insert(0, Patch(facecolor="#F3F3F3", edgecolor="#A0A0A0", hatch=HATCH, label=label))
    if formula:
        handles += axes.plot([], [], "-o", color=FORMULA, linewidth=2, markersize=4.5, label="By the formula")
    if handles:
        axes.legend(
            handles=handles,
            loc="lower left",  # the limit's label is above it
            bbox_to_anchor=(1.0, -0.02),
            frameon=False,
            fontsize=9,
            labelcolor=INK,
            labelspacing=0.8,
        )
    tidy(axes)


def _draw_text(
    axes: Axes, x: float, y: float, words: str, *, ha: str = "left", right: float = 0, color: str = INK
) -> None:
    """Draw text on a white halo, `right` points beside (x, y)."""
    axes.annotate(
        words,
        xy=(x, y),
        xytext=(right, 0),
        textcoords="offset points",
        ha=ha,
        va="center",
        fontsize=8.5,
        color=color,
        path_effects=[withStroke(linewidth=3, foreground="white")],
        zorder=6,
        annotation_clip=False,
    )


def _short(reason: str, limit: int = 90) -> str:
    """The error without its remedy."""
    words = reason.partition(": ")[0]
    return words if len(words) <= limit else f"{words[: limit - 1]}…"
