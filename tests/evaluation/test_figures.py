"""Figures: their content and colors, and the PNG output."""

import io

import imageio.v3
import numpy as np
import pytest

from ringrl.evaluation import data_figure, figures, ratio_figure
from ringrl.evaluation.figures import Curve


def curve(label, mean, half_width=1.0):
    mean = np.asarray(mean, float)
    return Curve(label, mean, mean - half_width, mean + half_width)


def drawn(axes):
    """Curves with at least two points, by their label."""
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def texts(axes):
    return {text.get_text() for text in axes.texts}


def test_one_line_one_band_and_one_label_per_curve(tmp_path):
    curves = [curve("AT", [1, 2, 3]), curve("DT", [2, 2, 1]), curve("BC", [0, 0, 0])]
    figure = figures.plot_trials(curves, title="Maze", ylabel="Score", references={"optimum": 9.0})
    (axes,) = figure.axes
    lines = drawn(axes)
    assert set(lines) == {"AT", "DT", "BC"}
    np.testing.assert_array_equal(lines["DT"].get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(lines["DT"].get_ydata(), [2, 2, 1])
    assert len(axes.collections) == 3  # bands
    assert len({line.get_color() for line in lines.values()}) == 3
    assert {"AT", "DT", "BC", "optimum"} <= texts(axes)
    assert axes.get_ylim()[1] > 9.0
    assert axes.get_ylabel() == "Score"
    picture = imageio.v3.imread(figures.save_png(figure, tmp_path / "folder" / "trials.png"))
    assert picture.shape[0] > 300
    assert picture[..., :3].std() > 5  # something is on it
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 50


def test_an_agent_keeps_its_color_whatever_the_company():
    alone = figures.plot_trials([curve("DT", [1, 2])])
    together = figures.plot_trials([curve("AT", [1, 2]), curve("DT", [1, 2])])
    assert drawn(alone.axes[0])["DT"].get_color() == drawn(together.axes[0])["DT"].get_color()


def test_uneven_numbers_of_trials_get_a_legend_in_order():
    figure = figures.plot_trials([curve(f"N = {n}", np.arange(n)) for n in (1, 2, 16)], references={"best": 20.0})
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["N = 1", "N = 2", "N = 16"]
    assert "best" in texts(axes)
    assert figures.png_bytes(figure).startswith(b"\x89PNG")


def test_trials_that_never_ran_leave_a_gap_without_complaint():
    figure = figures.plot_trials([curve("AT", [1, np.nan, np.nan]), curve("DT", [np.nan] * 3)])
    assert figures.png_bytes(figure).startswith(b"\x89PNG")


def test_panels_share_a_label_s_color():
    figure = figures.plot_panels({"a": [curve("x", [1, 2]), curve("y", [2, 3])], "b": [curve("y", [1, 5])]})
    first, second = figure.axes
    assert drawn(first)["y"].get_color() == drawn(second)["y"].get_color()
    assert first.get_title(loc="left") == "a"


def test_many_curves_stay_distinct():
    (axes,) = figures.plot_trials([curve(f"run {i}", [i, i]) for i in range(20)]).axes
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn(axes).values()}) == 20


def test_labels_are_pushed_apart_but_keep_their_order():
    places = figures._separate([0.5, 0.5, 0.52, 0.9], gap=0.1)
    assert sorted(places) == pytest.approx([places[0], places[1], places[2], 0.9])
    assert np.diff(sorted(places)).min() >= 0.1 - 1e-9
    assert np.mean(places[:3]) == pytest.approx(np.mean([0.5, 0.5, 0.52]))
    assert figures._separate([0.8, 0.2], gap=0.1) == [0.8, 0.2]
    assert figures._separate([], gap=0.1) == []


def test_training_curves():
    steps = np.arange(200)
    history = {
        "loss": (steps, np.exp(-steps / 50.0)),
        "norm": (steps, np.where(steps == 3, np.nan, 1.0)),
        "none": ([], []),
    }
    figure = figures.plot_training_curves(history, title="AT", log=["loss"])
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear", "linear"]
    smooth = figure.axes[1].get_lines()[1].get_ydata()
    np.testing.assert_allclose(smooth, 1.0)  # the mean leaves the missing value out
    assert imageio.v3.imread(io.BytesIO(figures.png_bytes(figure))).shape[1] > 500


def test_a_lone_point_without_interval_has_no_bar():
    lone = Curve("AT", [2.0], [np.nan], [np.nan])
    figure = figures.plot_trials([lone])
    (axes,) = figure.axes
    assert not axes.collections
    assert figures.png_bytes(figure).startswith(b"\x89PNG")


def test_panels_that_are_to_be_compared_share_a_scale():
    low, high = (
        figures.plot_panels({"Maze": [curve("x", values)]}, span=(-5.0, 40.0)) for values in ([0, 1], [30, 35])
    )
    assert low.axes[0].get_ylim() == high.axes[0].get_ylim()
    bottom, top = low.axes[0].get_ylim()
    assert bottom < -5.0
    assert top > 40.0


def test_curves_of_one_metric_share_a_panel_with_named_axes():
    history = {
        "loss": ([1, 2], [20.0, 1.0]),
        "return": {"first trial": ([1, 2], [0, 1]), "last trial": ([1, 2], [5, 9])},
    }
    loss, returns = figures.plot_training_curves(history, log=("loss",)).axes
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("Training step", "Loss, logarithmic")
    assert (returns.get_xlabel(), returns.get_ylabel()) == ("Training step", "Return")
    assert [text.get_text() for text in returns.get_legend().get_texts()] == ["first trial", "last trial"]
    assert set(drawn(returns)) == {"first trial", "last trial"}
    assert returns.get_ylim()[1] >= 9


def test_long_labels_are_wrapped_and_keep_their_lines_apart():
    places = figures._separate([0.5, 0.5], gap=0.1, sizes=[1, 3])
    assert places[1] - places[0] == pytest.approx(0.2), "half of a line and half of three"
    name = "100: scripted controller at its best (return 15.34)"
    (axes,) = figures.plot_trials([curve("AT", [1, 2])], references={name: 100.0}).axes
    assert name in {text.replace("\n", " ") for text in texts(axes)}
    (few,) = figures.plot_training_curves({"loss": ([1, 2], [2.0, 1.0])}, log=("loss",)).axes
    assert few.get_yscale() == "linear", "within a decade a logarithmic axis has no numbers to read"
    assert max(len(line) for text in texts(axes) for line in text.split("\n") if "100" in text) <= figures.LABEL_WIDTH


def test_histograms_of_whole_numbers_have_no_gaps_and_name_their_axes():
    returns, lengths = np.arange(21.0), np.full(21, 20)
    left, right = data_figure.plot_episodes(returns, lengths, title="a set").axes
    assert [patch.get_height() for patch in left.patches] == [1.0] * 21
    assert [patch.get_height() for patch in right.patches] == [21.0]
    assert (left.get_xlabel(), left.get_ylabel()) == ("Return of an episode", "Episodes")
    assert (right.get_xlabel(), right.get_ylabel()) == ("Length of an episode, steps", "Episodes")
    assert left.get_title(loc="right") == "dashed: mean 10"
    for values in (np.arange(1000.0), np.random.default_rng(0).normal(size=99), np.zeros(3), np.array([0.5])):
        edges = data_figure.bin_edges(values)
        assert np.histogram(values, edges)[0].sum() == len(values)
        assert len(edges) <= data_figure.BINS + 2
    assert (np.histogram(np.arange(1000.0), data_figure.bin_edges(np.arange(1000.0)))[0] == 25).all()


def test_ratios_say_which_way_is_better():
    (axes,) = ratio_figure.plot_ratios({"time": {1024: 2.0, 2048: 1.5}}, title="A", ylabel="theirs / ours").axes
    assert axes.get_ylabel() == "theirs / ours"
    assert axes.get_xlabel() == "Tokens of a chain"
    assert "equal" in texts(axes)
