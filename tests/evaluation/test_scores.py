"""Scores: by hand on small tables, and the intervals' coverage on samples of a known mean."""

import numpy as np
import pytest
from scipy import stats

from ringrl.errors import RingRLError
from ringrl.evaluation.rollout import Rollout
from ringrl.evaluation.scores import Estimate, Reference, Sample, interquartile_mean, score

RETURNS = np.array([[1.0, 5.0, 3.0], [4.0, 2.0, 9.0]])


def test_by_hand():
    scores = score(Sample(RETURNS))
    assert [trial.value for trial in scores.trials] == [2.5, 3.5, 6.0]
    assert scores.first.value == 2.5
    assert scores.last.value == 6.0
    assert scores.mean.value == 4.0
    assert scores.best.value == 7.0  # (5 + 9) / 2: best of each environment
    assert (scores.first.low, scores.first.high) == (1.0, 4.0)  # of two rows, the rows themselves
    assert (scores.best.low, scores.best.high) == (5.0, 9.0)


def test_rollouts_are_scored_as_their_returns():
    returns, tasks = np.array([[1.0, 3.0], [2.0, np.nan], [4.0, 5.0]]), np.array([0, 1, 1])
    found = Rollout(returns, np.ones((3, 2), np.int64), None, tasks, np.zeros(3, np.int64))
    assert score(found) == score(Sample(returns, tasks))
    assert score([found, found]) == score([Sample(returns, tasks)] * 2)


def test_normalized_by_hand():
    normal = score(Sample(RETURNS)).normalized(Reference(1.0, 11.0))
    assert normal.first.value == pytest.approx(15.0)
    assert normal.trials[2].value == pytest.approx(50.0)
    assert (normal.best.low, normal.best.high) == pytest.approx((40.0, 80.0))


def test_trials_that_did_not_run_are_left_out():
    returns = np.array([[1.0, 5.0, np.nan, np.nan], [4.0, 2.0, 9.0, np.nan], [np.nan] * 4])
    scores = score(Sample(returns))
    assert [trial.value for trial in scores.trials[:3]] == [2.5, 3.5, 9.0]
    assert np.isnan(scores.trials[3].value)
    assert scores.trials[3].to_json() == {"value": None, "low": None, "high": None}
    assert scores.last.value == 7.0  # (5 + 9) / 2: each environment's own last
    assert scores.mean.value == 4.0  # (3 + 5) / 2
    assert scores.best.value == 7.0
    assert np.isnan(Estimate.from_json(scores.trials[3].to_json()).low)


def test_nothing_varies():
    for trial in score([Sample(np.full((7, 2), 0.1)), Sample(np.full((7, 2), 0.1))]).trials:
        assert trial == Estimate(trial.value, trial.value, trial.value)
        assert trial.value == pytest.approx(0.1)


def test_what_was_not_repeated_has_no_interval():
    """One environment of one task and one seed says nothing of others."""
    for sample in (Sample([[0.1, 0.2]]), Sample([[0.1, 0.2]], [3])):
        alone = score(sample)
        for estimate in (*alone.trials, alone.first, alone.last, alone.mean, alone.best, alone.iqm):
            assert not np.isnan(estimate.value)
            assert not estimate.has_interval
        assert alone.last.to_json() == {"value": 0.2, "low": None, "high": None}
        assert Estimate.from_json(alone.last.to_json()).to_json() == alone.last.to_json()
        assert not alone.normalized(Reference(0.0, 1.0)).last.has_interval
    assert score([Sample([[0.1, 0.2]]), Sample([[0.3, 0.5]])]).last.has_interval, "two seeds are a repetition"


def test_a_trial_that_few_reached_has_the_interval_of_those():
    returns = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, np.nan], [3.0, 9.0, np.nan], [4.0, np.nan, np.nan]])
    scores = score(Sample(returns, np.arange(4)))
    assert scores.trials[1].has_interval
    assert scores.trials[2].value == 3.0
    assert not scores.trials[2].has_interval, "one task alone got that far"
    twice = score(Sample(np.repeat(returns, 2, axis=0), np.repeat(np.arange(4), 2)))
    assert not twice.trials[2].has_interval, "twice the same task is one task"


def test_without_redraws_there_are_no_intervals():
    plain = score(Sample(RETURNS), bootstrap_samples=0)
    assert plain.last.value == 6.0
    assert not plain.last.has_interval


def test_the_interquartile_mean_is_that_of_scipy():
    random = np.random.default_rng(0)
    for rows in (1, 2, 3, 4, 5, 11, 64):
        values = random.normal(size=rows) ** 3
        assert interquartile_mean(values)[0] == pytest.approx(stats.trim_mean(values, 0.25))
        drawn = random.multinomial(rows, np.full(rows, 1 / rows), size=5)
        expected = [stats.trim_mean(np.repeat(values, counts), 0.25) for counts in drawn]
        np.testing.assert_allclose(interquartile_mean(values, drawn.astype(float)), expected)
    outlier = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [1000.0]])
    scores = score(Sample(outlier))
    assert scores.iqm.value == 3.5
    assert scores.iqm.low < 3.5 < scores.iqm.high
    assert scores.mean.value > 100


def test_same_input_same_numbers():
    sample = Sample(np.random.default_rng(0).normal(size=(9, 3)))
    assert score(sample) == score(sample)
    assert score(sample, seed=1) != score(sample)


def width(estimate):
    return estimate.high - estimate.low


def test_rows_of_one_task_are_drawn_together():
    values = np.random.default_rng(0).normal(size=(8, 1))
    alone = score(Sample(values)).first
    copied = score(Sample(np.tile(values, (5, 1)), np.tile(np.arange(8), 5))).first
    independent = score(Sample(np.tile(values, (5, 1)), np.zeros(40))).first
    assert width(copied) == pytest.approx(width(alone), rel=0.05)  # copies teach nothing
    assert width(independent) < 0.6 * width(alone)


def test_differing_seeds_widen_the_interval():
    returns = np.random.default_rng(0).normal(size=(16, 1))
    alike = score([Sample(returns)] * 3).first
    apart = score([Sample(returns - 3.0), Sample(returns), Sample(returns + 3.0)]).first
    assert apart.value == pytest.approx(alike.value)
    assert width(apart) > 3 * width(alike)
    assert width(alike) < width(score(Sample(returns)).first)


def test_the_same_tasks_under_more_seeds_are_no_further_tasks():
    returns, tasks = np.random.default_rng(0).normal(size=(16, 1)), np.arange(16)
    once = score(Sample(returns, tasks)).first
    thrice = score([Sample(returns, tasks)] * 3).first
    assert width(thrice) == pytest.approx(width(once), rel=0.05)


def test_samples_of_different_lengths_are_pooled():
    scores = score([Sample([[1.0, 2.0]]), Sample([[3.0, 4.0, 8.0]])])
    assert [trial.value for trial in scores.trials] == [2.0, 3.0, 8.0]
    assert scores.last.value == 5.0


def test_few_rows_get_an_interval_as_wide_as_student_s():
    values = np.random.default_rng(3).normal(size=(8, 1))
    student = 2 * stats.t.ppf(0.975, 7) * values.std(ddof=1) / np.sqrt(8)
    assert width(score(Sample(values), bootstrap_samples=20_000).first) == pytest.approx(student, rel=0.1)


def test_intervals_cover_the_true_mean():
    random = np.random.default_rng(0)
    hits = 0
    for seed in range(400):
        estimate = score(Sample(random.normal(3.0, 2.0, size=(16, 1))), bootstrap_samples=800, seed=seed).first
        hits += estimate.low <= 3.0 <= estimate.high
    assert 0.92 <= hits / 400 <= 0.98


def test_intervals_over_seeds_and_tasks_cover_the_true_mean():
    random, tasks = np.random.default_rng(0), np.tile(np.arange(16), 2)
    hits = 0
    for seed in range(300):
        by_task = random.normal(3.0, 5.0, size=16)[tasks]
        seeds = [by_task + random.normal(0.0, 1.0) + random.normal(0.0, 2.0, size=32) for _ in range(3)]
        samples = [Sample(values[:, None], tasks) for values in seeds]
        estimate = score(samples, bootstrap_samples=400, seed=seed).first
        hits += estimate.low <= 3.0 <= estimate.high
    assert 0.91 <= hits / 300 <= 0.98


@pytest.mark.parametrize(
    ("returns", "message"),
    [(np.zeros((0, 3)), "shape"), (np.full((2, 2), np.nan), "No trial ran"), ([[np.inf]], "infinite")],
)
def test_what_cannot_be_scored_is_refused(returns, message):
    with pytest.raises(RingRLError, match=message):
        score(Sample(np.asarray(returns)))


def test_references_must_ascend():
    with pytest.raises(RingRLError, match="ascending"):
        Reference(1.0, 1.0)
