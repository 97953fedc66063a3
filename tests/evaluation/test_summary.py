"""The summary's contract: every promised field, the way back from disk, and one line for each fault."""

import csv
import enum
import json
from pathlib import Path

import numpy as np
import pytest

from ringrl.errors import RingRLError
from ringrl.evaluation import summary as summaries
from ringrl.evaluation.rollout import Rollout
from ringrl.evaluation.scores import Reference


class Colour(enum.StrEnum):
    red = "red"


def example_rollout(success=True):
    returns = np.array([[1.0, 2.0, 6.0], [3.0, 4.0, np.nan]])
    return Rollout(
        returns,
        np.array([[5, 5, 5], [7, 7, 0]]),
        np.array([[0, 0, 1], [0, 1, np.nan]]) if success else None,
        np.array([3, 4]),
        np.array([0, 1]),
    )


def build(**kwargs):
    values = {
        "agent": "at",
        "environment": "ringrl/DarkRoom-v0",
        "seed": 0,
        "rollout": example_rollout(),
        "reference": Reference(0.0, 10.0),
        "train": {"steps": np.int64(7), "tokens": 70, "seconds": 1.5, "final_loss": float("nan")},
        "config": {"seed": 0, "agent": {"name": Colour.red}, "path": Path("a/b"), "list": (1, 2)},
        "data_fingerprint": "abc",
    }
    return summaries.build_summary(**{**values, **kwargs})


def test_every_promised_field_is_there_and_survives_the_disk(tmp_path):
    summary = build(extra={"note": 1})
    path = summaries.write_summary(summary, tmp_path / "new" / "folder")
    loaded = summaries.load_summary(path.parent)
    assert loaded == summary == summaries.load_summary(path)
    assert path.name == "summary.json"
    assert [p.name for p in path.parent.iterdir()] == ["summary.json"]
    assert loaded["trial_returns"] == [2.0, 3.0, 6.0]
    assert loaded["trial_intervals"] == [[1.0, 3.0], [2.0, 4.0], [None, None]]
    assert loaded["last"] == {"value": 5.0, "low": 4.0, "high": 6.0}
    assert loaded["normalized"]["last"] == {"value": 50.0, "low": 40.0, "high": 60.0}
    assert loaded["train"] == {"steps": 7, "tokens": 70, "seconds": 1.5, "final_loss": None}
    assert loaded["config"] == {"seed": 0, "agent": {"name": "red"}, "path": "a/b", "list": [1, 2]}
    assert loaded["returns"] == [[1.0, 2.0, 6.0], [3.0, 4.0, None]]
    assert loaded["success"] == [0.0, 0.5, 1.0]
    assert loaded["device"]
    assert loaded["version"]
    assert loaded["note"] == 1
    assert set(summaries.FIELDS) <= loaded.keys()


def test_without_reference_nothing_is_normalized():
    summary = build(reference=None, train=None, rollout=example_rollout(success=False))
    assert summary["normalized"] is None
    assert summary["references"] is None
    assert summary["success"] is None
    assert summary["train"] == dict.fromkeys(summaries.TRAIN_FIELDS)


def test_several_runs_in_one_file(tmp_path):
    runs = [build(agent="at"), build(agent="dt")]
    loaded = summaries.load_summary(summaries.write_summary(runs, tmp_path))
    assert [run["agent"] for run in summaries.list_runs(loaded)] == ["at", "dt"]
    assert summaries.list_runs(runs[0]) == [runs[0]]


def test_trials_csv(tmp_path):
    path = summaries.write_trials(example_rollout(), tmp_path / "trials.csv")
    lines = list(csv.DictReader(path.read_text().splitlines()))
    assert len(lines) == 6
    assert lines[2] == {
        **{"environment": "0", "task_id": "3", "repeat": "0", "trial": "2"},
        **{"return": "6.0", "length": "5", "success": "1.0"},
    }
    assert lines[5] == {
        **{"environment": "0", "task_id": "4", "repeat": "1", "trial": "2"},
        **{"return": "", "length": "0", "success": ""},
    }


def test_faults_are_one_line_that_names_the_file(tmp_path):
    path = tmp_path / "summary.json"

    def refused(content, message):
        if content is not None:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(RingRLError, match=message) as caught:
            summaries.load_summary(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    refused(None, "does not exist")
    refused("{", "cannot be read as JSON")
    refused({"episodes": 3}, "not the summary of an evaluation")
    refused([], "not the summary of an evaluation")
    good = build()
    for name in summaries.FIELDS:
        refused({key: value for key, value in good.items() if key != name}, name)
    refused({**good, "trial_returns": []}, "trial_returns")
    refused({**good, "trial_intervals": [[0, 1]]}, "trial_intervals")
    refused({**good, "best": 3.0}, "`best`")
    refused({**good, "normalized": {}}, "`first`")
    refused({**good, "returns": [[1.0]]}, "`returns`")
    refused({"runs": [good, {"agent": "dt"}]}, "not the summary of an evaluation")


def test_the_commit_is_this_checkout_s():
    commit = summaries.git_commit()
    assert commit is None or (len(commit) == 40 and int(commit, 16) >= 0)
