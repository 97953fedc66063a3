"""Reports: what is gathered, what is pooled, and the numbers in every table."""

import csv
import json
import re

import numpy as np
import pytest

from ringrl.errors import RingRLError
from ringrl.evaluation import report, summary
from ringrl.evaluation.rollout import Rollout
from ringrl.evaluation.scores import Reference, Sample, score


def returns_of(*rows):
    return np.array(rows, np.float64)


def make_run(agent="at", seed=0, returns=None, config=None, environment="Maze-v0", reference=None, label=None):
    returns = returns_of([1, 2], [3, 6]) if returns is None else returns
    rows = np.arange(len(returns))
    data = Rollout(returns, np.where(np.isnan(returns), 0, 9), None, rows, np.zeros(len(returns), int))
    return summary.build_summary(
        agent=agent,
        environment=environment,
        seed=seed,
        rollout=data,
        reference=reference,
        label=label,
        config={"seed": seed, "name": f"run{seed}", **(config or {})},
        bootstrap_samples=200,
    )


def labels(runs):
    return [group.label for group in report.group_runs(runs, bootstrap_samples=100)]


def test_seeds_are_pooled():
    first, second = returns_of([1, 2], [3, 6]), returns_of([5, 4], [7, 8])
    (group,) = report.group_runs([make_run(seed=0, returns=first), make_run(seed=1, returns=second)])
    assert group.scores == score([Sample(first, [0, 1]), Sample(second, [0, 1])])
    assert [trial.value for trial in group.scores.trials] == [4.0, 5.0]
    assert group.scores.best.value == np.mean([2, 6, 5, 8])
    assert group.seeds == (0, 1)
    assert group.environments == 4
    assert not group.normalized


def test_a_second_evaluation_of_a_seed_is_not_a_second_seed():
    runs = [make_run(returns=returns_of([1, 2])), make_run(returns=returns_of([3, 4, 5]))]
    (group,) = report.group_runs(runs)
    assert group.seeds == (0,)
    assert [trial.value for trial in group.scores.trials] == [2.0, 3.0, 5.0]
    assert group.scores.last.value == 3.5


def test_evaluations_of_several_seeds_are_pooled():
    """What `ringrl eval` adds to a run's configuration: another checkpoint, and a name, do not make another agent."""
    runs = [
        make_run(seed=seed, config={"eval": {"checkpoint": f"runs/{seed}", "name": f"e{seed}", "which": "last"}})
        for seed in (0, 1)
    ]
    (group,) = report.group_runs(runs)
    assert (group.label, group.seeds) == ("AT", (0, 1))


def test_groups_differ_in_agent_and_configuration_and_are_named_by_it():
    def config(trajectories, tokens):
        return {"chain": {"trajectories": trajectories, "order": "ascending"}, "agent": {"tokens_per_step": tokens}}

    runs = [make_run(agent, config=config(4, 1)) for agent in ("bc", "bc10", "dt")]
    runs += [make_run("at", seed, config=config(n, 1)) for n in (16, 2) for seed in (0, 1)]
    assert labels(runs) == ["AT, trajectories=2", "AT, trajectories=16", "DT", "BC-10%", "BC"]
    runs.append(make_run("at", config=config(2, 4)))
    assert "AT, tokens_per_step=4, trajectories=2" in labels(runs)
    ambiguous = [make_run(config={"a": {"size": i}, "b": {"size": -i}}) for i in (1, 2)]
    assert labels(ambiguous) == ["AT, a.size=1, b.size=-1", "AT, a.size=2, b.size=-2"]


def test_an_own_label_wins_and_unknown_agents_come_last():
    runs = [make_run("mine"), make_run("dt"), make_run("at", label="AT shuffled"), make_run("at", config={"x": 3})]
    assert labels(runs) == ["AT", "AT shuffled", "DT", "mine"]


def test_scores_are_normalized_only_by_shared_references():
    shared = [make_run(agent, reference=Reference(0.0, 10.0)) for agent in ("at", "dt")]
    other = make_run("at", environment="Other-v0")
    groups = report.group_runs([*shared, other])
    assert [(g.environment, g.normalized) for g in groups] == [
        ("Maze-v0", True),
        ("Maze-v0", True),
        ("Other-v0", False),
    ]
    assert groups[0].scores.last.value == 40.0
    assert report.group_runs(shared, normalized=False)[0].scores.last.value == 4.0
    mixed = [shared[0], make_run("dt", reference=Reference(0.0, 20.0))]
    assert not any(group.normalized for group in report.group_runs(mixed))


def test_runs_are_found_once_under_folders_files_and_globs(tmp_path):
    runs = [make_run("at"), make_run("dt")]
    summary.write_summary(runs, tmp_path / "all")
    for run in runs:
        summary.write_summary(run, tmp_path / "all" / run["agent"])
    (tmp_path / "collected").mkdir()
    (tmp_path / "collected" / "summary.json").write_text(json.dumps({"episodes": 3}))
    assert len(report.find_runs([tmp_path])) == 2
    assert len(report.find_runs([tmp_path / "all" / "at" / "summary.json"])) == 1
    assert len(report.find_runs([str(tmp_path / "all" / "?t")])) == 2
    with pytest.raises(RingRLError, match="No finished run"):
        report.find_runs([tmp_path / "collected"])
    with pytest.raises(RingRLError, match=r"nowhere does not exist"):
        report.find_runs([tmp_path / "nowhere"])
    (tmp_path / "collected" / "summary.json").write_text("{")
    with pytest.raises(RingRLError, match=r"collected.summary\.json cannot be read as JSON"):
        report.find_runs([tmp_path])


def test_a_run_without_its_returns_cannot_be_pooled():
    run = make_run()
    del run["returns"]
    with pytest.raises(RingRLError, match=r"at in Maze-v0 .seed 0. has no `returns`"):
        report.group_runs([run])


def test_the_report_s_files_and_text_hold_the_numbers(tmp_path):
    at = returns_of([1, 2, 3.25], [3, 6, 7.25])
    dt = returns_of([1, 1, -1], [1, 1, np.nan])
    summary.write_summary([make_run("dt", returns=dt), make_run("at", returns=at)], tmp_path / "runs")
    text = report.write_report([tmp_path / "runs"], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["figure.png", "table.csv", "table.md"]
    assert (tmp_path / "out" / "figure.png").read_bytes().startswith(b"\x89PNG")

    lines = text.splitlines()
    assert lines[0] == "Maze-v0: return"
    assert re.fullmatch(r"\s+AT\s+DT", lines[2])
    cells = {line[:10].strip(): re.findall(r"-?[\d.]+ \[[^]]*\]", line[10:]) for line in lines[4:]}
    assert cells["1"] == ["2.00 [1.00, 3.00]", "1.00 [1.00, 1.00]"]
    assert cells["3"] == ["5.25 [3.25, 7.25]"], "a trial that one environment ran has no interval"
    assert next(line for line in lines if line.startswith(" 3")).endswith(" -1.00")
    assert cells["first"] == cells["1"]
    assert cells["last"] == ["5.25 [3.25, 7.25]", "0.00 [-1.00, 1.00]"]
    assert cells["mean"][0].startswith("3.75 [")
    assert cells["best of 3"] == ["5.25 [3.25, 7.25]", "1.00 [1.00, 1.00]"]

    table = (tmp_path / "out" / "table.md").read_text()
    assert "| AT | 1 | 2 | 3 | 2.00 [1.00, 3.00] | 5.25 [3.25, 7.25] |" in table
    assert "| AT | 2.00 [1.00, 3.00] | 4.00 [2.00, 6.00] | 5.25 [3.25, 7.25] |" in table
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == ["AT", "DT"]
    assert float(rows[0]["trial_2_high"]) == 6.0
    assert rows[0]["normalized"] == "false"
    assert {row["best"] for row in rows} == {"5.25", "1.0"}


def test_every_trial_is_printed_on_a_narrow_terminal_and_lines_stay_within_it():
    runs = [
        make_run(agent, returns=returns_of(*[np.arange(8.0) + i for i in range(3)])) for agent in ("at", "dt", "bc")
    ]
    narrow = report.runs_table(runs, width=60)
    table = [line for line in narrow.splitlines() if not line.startswith(("95 %", "Maze"))]
    assert max(map(len, table)) <= 60
    assert len([line for line in table if line.startswith(" 8 ")]) == 2  # two tables
    many = [make_run(config={"setting": i}) for i in range(40)]
    assert report.runs_table(many).count("setting=") == 40


def test_one_panel_per_environment_and_one_curve_per_group():
    runs = [make_run(agent, environment=name) for agent in ("at", "dt") for name in ("A-v0", "B-v0")]
    figure = report.runs_figure(runs)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["A-v0", "B-v0"]
    for axes in figure.axes:
        curves = [line for line in axes.get_lines() if line.get_label() in ("AT", "DT")]
        assert len(curves) == 2
        np.testing.assert_array_equal(curves[0].get_ydata(), [2.0, 4.0])


def test_groups_of_an_environment_are_compared():
    at, dt = (np.arange(8.0)[:, None] + shift for shift in ([1.0, 5.0], [0.0, 0.0]))
    runs = [make_run("at", returns=at), make_run("dt", returns=dt), make_run("at", returns=dt, environment="Other-v0")]
    groups = report.group_runs(runs)
    (apart,) = report.compare_groups(groups)
    assert (apart.environment, apart.ours, apart.theirs) == ("Maze-v0", "AT", "DT")
    assert (apart.difference.last.value, apart.difference.first.value) == (5.0, 1.0)
    assert (apart.difference.last.low, apart.difference.last.high) == (5.0, 5.0), "paired: it is the same on every task"
    text = report.tables.format_text(groups, [apart])
    assert "Differences, paired over 8 common tasks and 1 common seed:" in text
    assert re.search(r"AT - DT +1\.0 \[1\.0, 1\.0\] +5\.0 \[5\.0, 5\.0\]", text)
    assert "| AT - DT | 1.0 [1.0, 1.0] | 5.0 [5.0, 5.0] |" in report.tables.format_markdown(groups, [apart])


def test_of_many_groups_the_first_is_compared_with_the_others():
    runs = [make_run(config={"setting": index}) for index in range(6)]
    pairs = [
        (apart.ours, apart.theirs) for apart in report.compare_groups(report.group_runs(runs, bootstrap_samples=50))
    ]
    assert pairs == [("AT, setting=0", f"AT, setting={index}") for index in range(1, 6)]
    assert len(report.compare_groups(report.group_runs(runs[:4], bootstrap_samples=50))) == 6


def test_one_environment_has_no_interval_anywhere(tmp_path):
    run = make_run(returns=returns_of([14.6, 15.0]), reference=Reference(0.0, 20.0))
    assert run["last"] == {"value": 15.0, "low": None, "high": None}
    assert run["normalized"]["last"] == {"value": 75.0, "low": None, "high": None}
    assert run["trial_intervals"] == [[None, None], [None, None]]
    summary.write_summary(run, tmp_path / "run")
    text = report.write_report([tmp_path / "run"], tmp_path / "out")
    assert "75.0" in text
    assert "75.0 [" not in text
    assert "has no interval" in text
    assert "[" not in (tmp_path / "out" / "table.md").read_text()
    row = next(csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines()))
    assert (row["last"], row["last_low"], row["last_high"]) == ("75.0", "", "")


def test_the_scale_says_what_0_and_100_are():
    named = Reference(0.5, 15.25, "random policy", "scripted controller at its best")
    groups = report.group_runs([make_run(reference=named)])
    words = "0 is random policy (return 0.5), 100 is scripted controller at its best (return 15.25)"
    assert words in report.tables.format_text(groups)
    older = make_run("dt", reference=Reference(0.5, 15.25))
    del older["references"]["minimum_is"], older["references"]["maximum_is"]  # as versions before wrote it
    both = report.group_runs([older, make_run(reference=named)])
    assert all(group.normalized for group in both)
    assert both[0].reference == named
    (axes,) = report.plot_groups(report.group_runs([make_run(reference=Reference(0, 4, "a", "b"))])).axes
    named_lines = {text.get_text().replace("\N{NO-BREAK SPACE}", " ") for text in axes.texts}
    assert {"0: a (return 0)", "100: b (return 4)"} <= named_lines


def test_figures_of_evaluations_share_a_scale_and_show_the_earlier_ones():
    reference = Reference(0.0, 10.0)
    at, dt = make_run(returns=returns_of([8, 9], [8, 9]), reference=reference), make_run("dt", reference=reference)
    pictures = [
        report.evaluation_figure(run, step=40, returns=(-2.0, 12.0), earlier={20: [1.0, 2.0]}) for run in (at, dt)
    ]
    limits = [picture.axes[0].get_ylim() for picture in pictures]
    assert limits[0] == limits[1]
    assert limits[0][0] < -20
    assert limits[0][1] > 120
    earlier = [list(line.get_ydata()) for line in pictures[0].axes[0].get_lines()]
    assert [10.0, 20.0] in earlier, "normalized as the others"
    assert any("At training step 40; thin: at 20 to 20." in text.get_text() for text in pictures[0].axes[0].texts)


@pytest.mark.parametrize(
    ("unit", "last"),
    [
        (1e3, "4000"),
        (1.0, "4.00"),
        (1e-2, "0.040"),
        (1e-5, "0.000040"),
        (1e-9, "4.0e-09"),
    ],
)
def test_numbers_of_any_unit_show(unit: float, last: str) -> None:
    """Rows of returns 1, 2 and 3, 6: the last trial's mean is 4."""
    table = report.runs_table([make_run(returns=unit * returns_of([1, 2], [3, 6]))])
    [line] = [line.split() for line in table.splitlines() if line.split()[:1] == ["last"]]
    assert line[1] == last
