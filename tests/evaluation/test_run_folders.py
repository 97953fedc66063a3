"""Selection of an experiment's runs, and the report of unfinished ones."""

import json

import numpy as np
import pytest

from ringrl.errors import RingRLError
from ringrl.evaluation.rollout import Rollout
from ringrl.evaluation.run_folders import latest_runs, unfinished_line, unfinished_runs
from ringrl.evaluation.summary import build_summary, write_summary


def finish(folder, agent="at", seed=0, value=1.0, label=None, config=None):
    rows = np.full((2, 3), value)
    found = Rollout(rows, np.full((2, 3), 5), None, np.arange(2), np.zeros(2, int))
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    write_summary(
        build_summary(
            agent=agent,
            environment="Maze-v0",
            seed=seed,
            rollout=found,
            label=label,
            config={"seed": seed, **(config or {})},
            bootstrap_samples=50,
        ),
        folder,
    )


def values(found):
    return sorted((run["agent"], run["seed"], run["label"] or "", run["last"]["value"]) for run in found.runs)


DAYS = [f"2026-11-2{day}_10-00-00-000000" for day in range(9)]


def test_the_latest_of_each_agent_seed_and_label_counts(tmp_path):
    finish(tmp_path / f"{DAYS[0]}_at_seed0", value=1)
    finish(tmp_path / f"{DAYS[1]}_at_seed0", value=2)
    finish(tmp_path / f"{DAYS[2]}_at_seed1", seed=1, value=3)
    finish(tmp_path / f"{DAYS[3]}_dt_seed0", agent="dt", value=4)
    finish(tmp_path / f"{DAYS[4]}_at_seed0_short", label="short", value=5)
    finish(tmp_path / DAYS[5] / "dt_seed0", agent="dt", value=6)  # a sweep
    finish(tmp_path / DAYS[5] / "dt_seed1", agent="dt", seed=1, value=7)
    found = latest_runs(tmp_path)
    assert values(found) == [
        ("at", 0, "", 2.0),
        ("at", 0, "short", 5.0),
        ("at", 1, "", 3.0),
        ("dt", 0, "", 6.0),
        ("dt", 1, "", 7.0),
    ]
    assert (found.older, found.unfinished) == (2, [])


def test_what_a_sweep_varies_is_kept(tmp_path):
    finish(tmp_path / DAYS[0] / "at_seed0_rate-1", value=9, config={"rate": 1})
    for rate in (1, 2, 3):
        finish(tmp_path / DAYS[1] / f"at_seed0_rate-{rate}", value=rate, config={"rate": rate})
    found = latest_runs(tmp_path)
    assert sorted(run["last"]["value"] for run in found.runs) == [1.0, 2.0, 3.0]
    assert found.older == 1


def test_unfinished_runs_are_named(tmp_path):
    finish(tmp_path / DAYS[0])
    (tmp_path / DAYS[1] / "checkpoints" / "step_00000001").mkdir(parents=True)
    (tmp_path / DAYS[2] / "at_seed0").mkdir(parents=True)
    (tmp_path / DAYS[2] / "at_seed0" / "error.txt").write_text("Too long. (job x=1)\n")
    (tmp_path / DAYS[3]).mkdir()  # refused before it began
    (tmp_path / DAYS[4]).mkdir()
    (tmp_path / DAYS[4] / "summary.json").write_text("{")
    (tmp_path / DAYS[5]).mkdir()
    (tmp_path / DAYS[5] / "summary.json").write_text(json.dumps({"episodes": 3}))
    found = latest_runs(tmp_path)
    assert len(found.runs) == 1
    names = [one.folder.relative_to(tmp_path).as_posix() for one in found.unfinished]
    assert names == [DAYS[4], f"{DAYS[2]}/at_seed0", DAYS[1]], "the newest first"
    line = unfinished_line(found.unfinished, tmp_path)
    assert "\n" not in line
    assert line.startswith("not finished (running, stopped or failed): 3: ")
    assert f"{DAYS[2]}/at_seed0 (Too long. (job x=1))" in line
    assert [one.folder.name for one in unfinished_runs([tmp_path / DAYS[2]])] == ["at_seed0"]


def test_where_nothing_is_finished_that_is_said(tmp_path):
    (tmp_path / DAYS[1] / "checkpoints").mkdir(parents=True)
    with pytest.raises(RingRLError, match=f"No finished run in .*; not finished .*: 1: {DAYS[1]}"):
        latest_runs(tmp_path)


def test_folders_without_a_date_are_ordered_by_their_files(tmp_path):
    import os

    finish(tmp_path / "mine", value=1)
    finish(tmp_path / "yours", value=2)
    os.utime(tmp_path / "yours" / "summary.json", (1_000_000_000, 1_000_000_000))
    (run,) = latest_runs(tmp_path).runs
    assert run["last"]["value"] == 1.0


def test_of_many_unfinished_runs_some_are_named(tmp_path):
    for index in range(9):
        (tmp_path / f"{index}" / "checkpoints").mkdir(parents=True)
    line = unfinished_line(unfinished_runs([tmp_path]), tmp_path)
    assert ": 9: 0, 1, 2, 3, 4, 5, and 3 more." in line
