"""Figures of plans: bar heights equal the reported memory, and refusals are marked."""

import itertools

import pytest

from ringrl.evaluation.figures import PALETTE, png_bytes
from ringrl.planning.cluster.targets import Target
from ringrl.planning.plan import Memory, Plan, Report
from ringrl.planning.report.figures import (
    GIB,
    candidates_figure,
    context_name,
    find_required_bytes,
    format_required_gib,
    plan_figure,
    sum_by_kind,
)
from ringrl.planning.search import Candidate

K = 1024
LIMIT = 30 * GIB
REFUSAL = "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
TEMPORARIES = REFUSAL + "temporaries (54.13G) exceeds available HBM (15.25G). HLO module: jit_train_step."


def accepted(tokens, temporaries, accepted=True):
    memory = Memory(arguments=4 * GIB, outputs=3 * GIB, aliased=2 * GIB, temporaries=temporaries * GIB, code=0)
    return Report(tokens, accepted, "", memory, LIMIT, compilers={"jax": "0.10.2", "libtpu": "0.0.52"})


def refused(tokens, line="RESOURCE_EXHAUSTED"):
    return Report(tokens, False, line, None, LIMIT, compilers={"libtpu": "0.0.52"})


def bars(axes):
    return [patch for patch in axes.patches if patch.get_height() > 0]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def ticks(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def test_contexts_are_named_in_thousands_where_they_are():
    assert context_name(1024 * K) == "1,024K"
    assert context_name(32_768 * K) == "32,768K"
    assert context_name(1000) == "1,000"


def test_kinds_add_up_to_the_total():
    memory = Memory(arguments=10, outputs=9, aliased=8, temporaries=7, code=6)
    assert sum(sum_by_kind(memory).values()) == memory.total


@pytest.mark.parametrize(
    ("line", "bytes_wanted", "words"),
    [
        (TEMPORARIES, 54.13 * GIB, "≥ 54.13"),
        ("Ran out of memory in memory space hbm. Used 61.25G of 30.75G hbm.", 61.25 * GIB, "≥ 61.25"),
        ("Used 512.0M of 100.0M hbm", GIB / 2, "≥ 0.50"),
        ("out of memory", None, ""),
    ],
)
def test_what_a_refusal_says_of_memory_is_a_least(line, bytes_wanted, words):
    assert find_required_bytes(refused(1, line)) == bytes_wanted
    assert format_required_gib(refused(1, line)) == words


def test_bars_are_stacked_to_the_total_and_stand_at_their_doublings():
    reports = [accepted(32 * K, 16), accepted(8 * K, 4), accepted(16 * K, 8)]
    (axes,) = plan_figure(reports, title="7B").axes
    tops = {}
    for bar in bars(axes):
        place = round(bar.get_x() + bar.get_width() / 2, 6)
        tops[place] = max(tops.get(place, 0), bar.get_y() + bar.get_height())
    assert tops == {0: 9, 1: 13, 2: 21}
    assert ticks(axes) == ["8K\n9.0 GiB", "16K\n13.0 GiB", "32K\n21.0 GiB"]
    assert "limit\n30.00 GiB" in texts(axes)
    assert "As reported by jax 0.10.2, libtpu 0.0.52" in texts(axes)
    assert axes.get_ylim()[1] > 30
    assert axes.get_legend().get_texts()[-1].get_text().startswith("Arguments")
    assert axes.get_title(loc="left") == "7B"


def test_refused_contexts_are_hatched_up_to_the_limit_or_what_the_compiler_said():
    reports = [refused(16 * K), refused(32 * K, TEMPORARIES), accepted(8 * K, 4)]
    (axes,) = plan_figure(reports, title="7B").axes
    hatched = [bar for bar in bars(axes) if bar.get_hatch()]
    assert [bar.get_height() for bar in hatched] == pytest.approx([30, 54.13])
    assert texts(axes).count("refused") == 2
    assert ticks(axes) == ["8K\n9.0 GiB", "16K\n", "32K\n≥ 54.1 GiB"]
    assert axes.get_legend().get_texts()[0].get_text() == "Refused"


def test_over_the_limit_is_not_called_refused():
    (axes,) = plan_figure([accepted(8 * K, 4), accepted(16 * K, 100, accepted=False)], title="7B").axes
    assert "over the\nlimit" in texts(axes)
    assert "refused" not in texts(axes)
    assert len([bar for bar in bars(axes) if bar.get_hatch()]) == 3  # arguments, temporaries, outputs
    assert axes.get_ylim()[1] < 2 * 30  # the small ones are still seen


def test_the_formula_is_a_line_over_the_bars():
    predicted = {16 * K: {"a": 4.0 * GIB, "b": 8.0 * GIB}, 8 * K: {"a": 4.0 * GIB, "b": 4.0 * GIB}}
    (axes,) = plan_figure([accepted(8 * K, 4)], title="7B", predicted=predicted).axes
    line = next(line for line in axes.get_lines() if line.get_color() == PALETTE[1] and len(line.get_xdata()))
    assert list(line.get_ydata()) == [8, 12]
    assert "By the formula" in {text.get_text() for text in axes.get_legend().get_texts()}
    assert ticks(axes) == ["8K\n9.0 GiB", "16K\n"]  # a size beside a context is the compiler's


def test_the_formula_alone_says_that_no_compiler_was_asked():
    (axes,) = plan_figure([], title="7B", predicted={8 * K: {"all": 5.0 * GIB}}, limit=LIMIT).axes
    assert "By the formula: no compiler was asked" in texts(axes)
    assert "limit\n30.00 GiB" in texts(axes)
    assert ticks(axes) == ["8K\n5.0 GiB"]


def test_bisected_contexts_keep_room_for_their_names():
    reports = [accepted(64 * K, 8), *(refused(tokens * K) for tokens in (72, 80, 96, 128))]
    (axes,) = plan_figure(reports, title="7B").axes
    places = axes.get_xticks()
    assert len(places) == 5
    assert min(b - a for a, b in itertools.pairwise(places)) > 0.62  # the width of a bar


def test_choices_are_bars_in_their_order_and_what_was_not_asked_says_why():
    plan = Plan(Target(topology="v4:2x2x2"), 8 * K)
    reason = "6 heads do not divide among 4: use fewer."
    candidates = [
        Candidate("ring", plan, accepted(8 * K, 4)),
        Candidate("ulysses", plan, reason=reason),
        Candidate("blockwise", plan, accepted(8 * K, 200, accepted=False)),
    ]
    figure = candidates_figure(candidates, title="By strategy")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ring", "ulysses", "blockwise"]
    assert {"9.0 GiB", "6 heads do not divide among 4", "over the limit, 205.0 GiB"} <= set(texts(axes))
    low, high = axes.get_ylim()
    assert low > high  # the first on top
    assert png_bytes(figure).startswith(b"\x89PNG")
