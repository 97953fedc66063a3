"""Figures: what is drawn, in which colours, and that a PNG comes out."""

import io

import imageio.v3
import numpy as np
import pytest

from ringrl.evaluation import figures
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


def test_an_agent_keeps_its_colour_whatever_the_company():
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


def test_panels_share_a_label_s_colour():
    figure = figures.plot_panels({"a": [curve("x", [1, 2]), curve("y", [2, 3])], "b": [curve("y", [1, 5])]})
    first, second = figure.axes
    assert drawn(first)["y"].get_color() == drawn(second)["y"].get_color()
    assert first.get_title(loc="left") == "a"


def test_many_curves_stay_distinct():
    (axes,) = figures.plot_trials([curve(f"run {i}", [i, i]) for i in range(20)]).axes
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn(axes).values()}) == 20


def test_labels_are_pushed_apart_but_keep_their_order():
    places = figures._spread([0.5, 0.5, 0.52, 0.9], gap=0.1)
    assert sorted(places) == pytest.approx([places[0], places[1], places[2], 0.9])
    assert np.diff(sorted(places)).min() >= 0.1 - 1e-9
    assert np.mean(places[:3]) == pytest.approx(np.mean([0.5, 0.5, 0.52]))
    assert figures._spread([0.8, 0.2], gap=0.1) == [0.8, 0.2]
    assert figures._spread([], gap=0.1) == []


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
