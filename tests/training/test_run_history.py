"""Losses and evaluations of a whole run, over resumes and kills."""

import math

import pytest

from ringrl.errors import RingRLError
from ringrl.training.run_history import RunHistory, read_losses

SCORES = {"first": 1.0, "last": 2.5, "score": 1.75}


def test_a_resumed_run_has_the_losses_of_before_and_none_of_after(tmp_path):
    with RunHistory(tmp_path, 0) as history:
        for step in range(1, 6):
            history.add_loss(step, 1 / step)
        history.add_evaluation(2, SCORES)
        history.add_evaluation(4, {**SCORES, "last": 3.0})
    with RunHistory(tmp_path, 3) as history:  # from the checkpoint of step 3
        assert history.losses == {1: 1.0, 2: 0.5, 3: 1 / 3}
        assert history.evaluations == {2: SCORES}
        history.add_loss(4, 0.125)
        history.add_evaluation(4, {**SCORES, "last": 4.0})
    assert read_losses(tmp_path) == {1: 1.0, 2: 0.5, 3: 1 / 3, 4: 0.125}
    assert (tmp_path / "losses.csv").read_text().splitlines() == [
        *("step,loss", "1,1.0", "2,0.5", "3,0.3333333333333333", "4,0.125"),
    ]
    assert (tmp_path / "evaluations.csv").read_text().splitlines() == [
        *("step,first,last,score", "2,1.0,2.5,1.75", "4,1.0,4.0,1.75"),
    ]


def test_half_a_line_of_a_killed_process_is_passed_over(tmp_path):
    (tmp_path / "losses.csv").write_text("step,loss\n1,0.5\n2,nan\nx,1\n3,0.25,7\n4,0.1")
    with RunHistory(tmp_path, 9) as history:
        assert history.losses[1] == 0.5
        assert math.isnan(history.losses[2])
        assert list(history.losses) == [1, 2]
    assert (tmp_path / "losses.csv").read_text() == "step,loss\n1,0.5\n2,nan\n"


def test_a_new_run_begins_without_what_was_there(tmp_path):
    (tmp_path / "losses.csv").write_text("step,loss\n1,0.5\n")
    with RunHistory(tmp_path, 0) as history:
        assert history.losses == {}
        history.add_loss(1, 0.25)
        history.flush()
        assert read_losses(tmp_path) == {1: 0.25}


def test_an_evaluation_made_again_counts_once(tmp_path):
    with RunHistory(tmp_path, 0) as history:
        history.add_evaluation(2, SCORES)
        history.add_evaluation(2, {**SCORES, "last": 9.0})
    with RunHistory(tmp_path, 2) as history:
        assert history.evaluations == {2: {**SCORES, "last": 9.0}}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RingRLError, match="Cannot write the losses"):
        RunHistory(tmp_path / "file", 0)
