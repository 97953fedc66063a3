"""Differences between two groups of runs, with bootstrap intervals of the difference itself."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ringrl.evaluation.scores import (
    SUMMARIES,
    Estimate,
    Reference,
    Sample,
    check_sample,
    draw_seeds,
    draw_tasks,
    estimate,
    find_shared_tasks,
    interquartile_mean,
    make_units,
    redrawn_means,
    row_values,
    row_weights,
)


@dataclasses.dataclass(frozen=True)
class Difference:
    """Differences of one group's scores from another's: first, last, mean, interquartile mean and best-of-n."""

    first: Estimate
    last: Estimate
    mean: Estimate
    iqm: Estimate
    best: Estimate
    tasks: int  # shared by both groups and paired; 0 if each group resamples its own
    seeds: int  # the same for seeds

    def normalized(self, reference: Reference) -> "Difference":
        """The differences in percent of the distance between the references."""
        span = Reference(0.0, reference.maximum - reference.minimum)
        scaled = {name: getattr(self, name).normalized(span) for name in (*SUMMARIES, "iqm")}
        return dataclasses.replace(self, **scaled)


def difference(
    ours: Mapping[int, Sample], theirs: Mapping[int, Sample], *, bootstrap_samples: int = 2000, seed: int = 0
) -> Difference:
    """Our means minus theirs, with 95 % percentile bootstrap intervals, paired over shared tasks and seeds.

    If the groups share at least two tasks, only those count, and each resample uses the same tasks for both groups, so
    that the difficulty of tasks does not widen the interval. The same applies to training seeds if the groups share two
    or have the same one. Anything not shared is resampled by each group separately. Otherwise as in `scores.score`;
    there is no interval if one of the groups has none.

    Args:
        ours: One sample per training seed.
        theirs: The samples of the other group.
        bootstrap_samples: Number of resamples; 0 leaves the intervals out.
        seed: Seed of the resampling.
    """
    random = np.random.default_rng(seed)
    pair = (
        {key: check_sample(part) for key, part in ours.items()},
        {key: check_sample(part) for key, part in theirs.items()},
    )
    pair, tasks = _with_shared_tasks(pair)
    pair, seeds = _with_shared_seeds(pair)
    groups = [list(group.values()) for group in pair]

    seed_draws = [draw_seeds(random, len(parts), bootstrap_samples) for parts in groups]
    if seeds:
        seed_draws[1] = seed_draws[0]
    task_draws = [_draw_weights(random, parts, bootstrap_samples) for parts in groups]
    if tasks:
        task_draws[1] = task_draws[0]
    centers, redrawn, units = [], [], []
    for parts, of_seeds, of_tasks in zip(groups, seed_draws, task_draws, strict=True):
        values = np.concatenate([row_values(part.returns, part.returns.shape[1])[:, -4:] for part in parts])
        weights = row_weights(random, parts, of_seeds, find_shared_tasks(parts), of_tasks)
        middle = values[:, SUMMARIES.index("mean")]
        center, means = redrawn_means(values, weights)
        centers.append(np.append(center, interquartile_mean(middle)))
        redrawn.append(np.column_stack([means, interquartile_mean(middle, weights)]))
        units.append(make_units(parts).behind(middle))
    names = (*SUMMARIES, "iqm")
    found = [
        estimate(float(centers[0][i] - centers[1][i]), redrawn[0][:, i] - redrawn[1][:, i], min(units))
        for i in range(len(names))
    ]
    return Difference(**dict(zip(names, found, strict=True)), tasks=tasks, seeds=seeds)


Pair = tuple[dict[int, Sample], dict[int, Sample]]


def _with_shared_tasks(pair: Pair) -> tuple[Pair, int]:
    """Restrict both groups to their shared tasks, and return their number; unchanged, with 0, if fewer than two."""
    ours, theirs = (find_shared_tasks(list(group.values())) for group in pair)
    shared = np.intersect1d(ours, theirs)
    if len(shared) < 2:
        return pair, 0
    kept = tuple(
        {
            seed: Sample(part.returns[rows], np.asarray(part.task_ids)[rows])
            for seed, part in group.items()
            if (rows := np.isin(part.task_ids, shared)).any()  # type: ignore[arg-type]
        }
        for group in pair
    )
    return (kept[0], kept[1]), len(shared)


def _with_shared_seeds(pair: Pair) -> tuple[Pair, int]:
    """Restrict both groups to their shared seeds, and return their number; unchanged, with 0, if they do not pair."""
    shared = [seed for seed in pair[0] if seed in pair[1]]
    if len(shared) < 2 and set(pair[0]) != set(pair[1]):
        return pair, 0
    return ({seed: pair[0][seed] for seed in shared}, {seed: pair[1][seed] for seed in shared}), len(shared)


def _draw_weights(random: np.random.Generator, parts: Sequence[Sample], samples: int) -> np.ndarray | None:
    tasks = find_shared_tasks(parts)
    return draw_tasks(random, len(tasks), samples) if len(tasks) > 1 else None
