"""How far two groups of runs are apart, with the bootstrap interval of the difference itself."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ringrl.evaluation.scores import (
    SUMMARIES,
    Estimate,
    Reference,
    Sample,
    checked,
    draw_seeds,
    draw_tasks,
    estimate,
    interquartile_mean,
    redrawn_means,
    row_values,
    row_weights,
    tasks_of,
    units_of,
)


@dataclasses.dataclass(frozen=True)
class Difference:
    """One group's scores less another's: first, last, mean, interquartile mean and best-of-n."""

    first: Estimate
    last: Estimate
    mean: Estimate
    iqm: Estimate
    best: Estimate
    tasks: int  # that the interval is paired over; 0: drawn by each group for itself
    seeds: int  # the same

    def normalized(self, reference: Reference) -> "Difference":
        """The same in parts of 100 between the references."""
        span = Reference(0.0, reference.maximum - reference.minimum)
        scaled = {name: getattr(self, name).normalized(span) for name in (*SUMMARIES, "iqm")}
        return dataclasses.replace(self, **scaled)


def difference(
    ours: Mapping[int, Sample], theirs: Mapping[int, Sample], *, bootstrap_samples: int = 2000, seed: int = 0
) -> Difference:
    """Our means less theirs, with 95 % percentile bootstrap intervals, paired over what both groups have.

    Where they share at least two tasks, only those count, and each redraw draws the same of them for both, so that
    what makes a task easy for both does not widen the interval. So it is with training seeds, if the groups share two
    or have the same one. What they do not share is drawn by each for itself. Otherwise as `scores.score`; there is no
    interval where one of the groups has none.

    Args:
        ours: One sample per training seed.
        theirs: The same of the other group.
        bootstrap_samples: Number of redraws; 0 leaves the intervals out.
        seed: Of the redraws.
    """
    random = np.random.default_rng(seed)
    pair = ({key: checked(part) for key, part in ours.items()}, {key: checked(part) for key, part in theirs.items()})
    pair, tasks = _with_shared_tasks(pair)
    pair, seeds = _with_shared_seeds(pair)
    groups = [list(group.values()) for group in pair]

    seed_draws = [draw_seeds(random, len(parts), bootstrap_samples) for parts in groups]
    if seeds:
        seed_draws[1] = seed_draws[0]
    task_draws = [_draws_of(random, parts, bootstrap_samples) for parts in groups]
    if tasks:
        task_draws[1] = task_draws[0]
    centres, redrawn, units = [], [], []
    for parts, of_seeds, of_tasks in zip(groups, seed_draws, task_draws, strict=True):
        values = np.concatenate([row_values(part.returns, part.returns.shape[1])[:, -4:] for part in parts])
        weights = row_weights(random, parts, of_seeds, tasks_of(parts), of_tasks)
        middle = values[:, SUMMARIES.index("mean")]
        centre, means = redrawn_means(values, weights)
        centres.append(np.append(centre, interquartile_mean(middle)))
        redrawn.append(np.column_stack([means, interquartile_mean(middle, weights)]))
        units.append(units_of(parts).behind(middle))
    names = (*SUMMARIES, "iqm")
    found = [
        estimate(float(centres[0][i] - centres[1][i]), redrawn[0][:, i] - redrawn[1][:, i], min(units))
        for i in range(len(names))
    ]
    return Difference(**dict(zip(names, found, strict=True)), tasks=tasks, seeds=seeds)


Pair = tuple[dict[int, Sample], dict[int, Sample]]


def _with_shared_tasks(pair: Pair) -> tuple[Pair, int]:
    """Both groups on the tasks that both have, and their number; as they are, and 0, where they share less than two."""
    ours, theirs = (tasks_of(list(group.values())) for group in pair)
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
    """Both groups with the seeds that both have, and their number; as they are, and 0, where they do not pair up."""
    shared = [seed for seed in pair[0] if seed in pair[1]]
    if len(shared) < 2 and set(pair[0]) != set(pair[1]):
        return pair, 0
    return ({seed: pair[0][seed] for seed in shared}, {seed: pair[1][seed] for seed in shared}), len(shared)


def _draws_of(random: np.random.Generator, parts: Sequence[Sample], samples: int) -> np.ndarray | None:
    tasks = tasks_of(parts)
    return draw_tasks(random, len(tasks), samples) if len(tasks) > 1 else None
