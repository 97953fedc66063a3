"""Differences: by hand, paired and not, and the coverage of their intervals."""

import numpy as np
import pytest

from ringrl.evaluation.differences import difference
from ringrl.evaluation.scores import Reference, Sample, score


def width(estimate):
    return estimate.high - estimate.low


def test_by_hand():
    ours = {0: Sample(np.array([[1.0, 5.0], [3.0, 9.0]]), [0, 1])}
    theirs = {0: Sample(np.array([[0.0, 1.0], [2.0, 1.0]]), [0, 1])}
    apart = difference(ours, theirs)
    assert [getattr(apart, name).value for name in ("first", "last", "mean", "best")] == [1.0, 6.0, 3.5, 5.5]
    assert (apart.first.low, apart.first.high) == (1.0, 1.0), "every task differs by the same"
    assert (apart.last.low, apart.last.high) == (4.0, 8.0)
    assert (apart.tasks, apart.seeds) == (2, 1)
    scaled = apart.normalized(Reference(10.0, 30.0))
    assert (scaled.last.value, scaled.last.low, scaled.last.high) == (30.0, 20.0, 40.0)


def test_what_is_common_does_not_widen_a_paired_interval():
    random = np.random.default_rng(0)
    tasks, easy = np.arange(16), 10 * random.normal(size=16)
    noise = [random.normal(size=16) for _ in range(2)]
    ours, theirs = ({0: Sample((easy + own)[:, None], tasks)} for own in noise)
    paired = difference(ours, theirs).first
    expected = noise[0] - noise[1]
    assert paired.value == pytest.approx(expected.mean())
    assert width(paired) == pytest.approx(width(score(Sample(expected[:, None], tasks)).first), rel=0.15)
    elsewhere = difference(ours, {0: Sample(theirs[0].returns, tasks + 100)})
    assert (elsewhere.tasks, elsewhere.seeds) == (0, 1)
    assert width(elsewhere.first) > 5 * width(paired)


def test_tasks_that_one_group_lacks_do_not_count():
    ours = {0: Sample(np.array([[1.0], [2.0], [100.0]]), [0, 1, 2])}
    apart = difference(ours, {0: Sample(np.array([[0.0], [0.0]]), [0, 1])})
    assert apart.first.value == 1.5
    assert apart.tasks == 2


def test_seeds_are_paired_where_both_groups_have_them():
    random, rows = np.random.default_rng(1), np.zeros((8, 1))
    shift = {seed: 5 * random.normal() for seed in range(4)}
    ours = {seed: Sample(rows + 1 + moved + random.normal(size=rows.shape)) for seed, moved in shift.items()}
    theirs = {seed: Sample(rows + moved + random.normal(size=rows.shape)) for seed, moved in shift.items()}
    paired = difference(ours, theirs)
    assert (paired.tasks, paired.seeds) == (0, 4)
    renamed = difference(ours, {seed + 10: sample for seed, sample in theirs.items()})
    assert renamed.seeds == 0
    assert width(renamed.first) > 3 * width(paired.first)
    fewer = difference(ours, {seed: theirs[seed] for seed in (1, 3)})
    assert fewer.seeds == 2
    expected = np.mean([ours[s].returns.mean() - theirs[s].returns.mean() for s in (1, 3)])
    assert fewer.first.value == pytest.approx(expected)


def test_there_is_no_interval_where_a_group_has_none():
    many, one = {0: Sample(np.arange(8.0)[:, None])}, {0: Sample(np.array([[2.0]]))}
    apart = difference(many, one)
    assert apart.last.value == 1.5
    assert not apart.last.has_interval
    assert not apart.iqm.has_interval
    assert not difference(many, many, bootstrap_samples=0).last.has_interval


def test_intervals_cover_the_true_difference():
    random, tasks, hits = np.random.default_rng(0), np.arange(16), 0
    for seed in range(150):
        easy, gain = random.normal(0.0, 5.0, size=16), random.normal(1.0, 2.0, size=16)
        groups = [
            {s: Sample((easy + more + random.normal() + random.normal(size=16))[:, None], tasks) for s in range(3)}
            for more in (gain, 0.0)
        ]
        estimate = difference(*groups, bootstrap_samples=300, seed=seed).first
        hits += estimate.low <= 1.0 <= estimate.high
    assert 0.90 <= hits / 150 <= 0.99
