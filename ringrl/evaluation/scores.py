"""Scores of trial returns with bootstrap intervals: every trial, first, last, mean and best-of-n."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ringrl.errors import RingRLError

if TYPE_CHECKING:
    from ringrl.evaluation.rollout import Rollout

SUMMARIES = ("first", "last", "mean", "best")  # of summary.json
SHOWN = ("first", "last", "mean", "iqm", "best")  # of tables
NAN = float("nan")  # one object, so that equal estimates compare equal


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval; NaN if nothing was measured, the interval alone if there are no repetitions."""

    value: float
    low: float
    high: float

    def normalized(self, reference: "Reference") -> "Estimate":
        """100 (R - minimum) / (maximum - minimum) of each number."""
        numbers = (self.value, self.low, self.high)
        return Estimate(*(NAN if np.isnan(x) else reference.normalize(x) for x in numbers))

    @property
    def has_interval(self) -> bool:
        """Whether there were enough repetitions for an interval."""
        return not np.isnan(self.low)

    def to_json(self) -> dict[str, float | None]:
        """Plain numbers; null for NaN."""
        numbers = dataclasses.asdict(self)
        return {key: None if np.isnan(x) else x for key, x in numbers.items()}

    @classmethod
    def from_json(cls, numbers: dict[str, Any]) -> "Estimate":
        """The inverse of `to_json`."""
        return cls(*(NAN if numbers[key] is None else float(numbers[key]) for key in ("value", "low", "high")))


@dataclasses.dataclass(frozen=True)
class Reference:
    """The returns that count as 0 and 100 (D4RL's normalized score)."""

    minimum: float
    maximum: float
    minimum_is: str = ""  # whose return that is, such as "random policy"
    maximum_is: str = ""

    def __post_init__(self) -> None:
        if not np.isfinite([self.minimum, self.maximum]).all() or not self.maximum > self.minimum:
            raise RingRLError(
                f"Reference scores {self.minimum} (0) and {self.maximum} (100) must be finite and ascending: "
                "correct ref_min_score and ref_max_score in the data set's metadata."
            )

    @property
    def in_words(self) -> str:
        """Describe what 0 and 100 stand for, with their returns."""
        return f"0 is {self.describe(0)}, 100 is {self.describe(100)}"

    def describe(self, score: int) -> str:
        """The policy that scores 0, or 100, with its return."""
        name, value = (self.maximum_is, self.maximum) if score else (self.minimum_is, self.minimum)
        return f"{name} (return {value:.4g})" if name else f"return {value:.4g}"

    def normalize(self, value: Any) -> Any:
        """100 (R - minimum) / (maximum - minimum), of a number or an array."""
        return 100.0 * (value - self.minimum) / (self.maximum - self.minimum)


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores reported for an evaluation of n trials."""

    trials: tuple[Estimate, ...]  # n
    first: Estimate
    last: Estimate
    mean: Estimate
    best: Estimate
    iqm: Estimate  # interquartile mean of the rows' means

    def normalized(self, reference: Reference) -> "Scores":
        """The scores on the scale on which the reference returns are 0 and 100."""
        trials = tuple(trial.normalized(reference) for trial in self.trials)
        return Scores(trials, *(getattr(self, name).normalized(reference) for name in (*SUMMARIES, "iqm")))

    def to_json(self) -> dict[str, Any]:
        """Convert first, last, mean and best to `{value, low, high}`."""
        return {name: getattr(self, name).to_json() for name in SUMMARIES}


@dataclasses.dataclass(frozen=True)
class Sample:
    """The trials of one training seed: returns (B, n), NaN where a trial did not run, and the rows' tasks (B,).

    Equal task ids mean the same task in every sample; without ids every row is a separate task.
    """

    returns: np.ndarray
    task_ids: np.ndarray | None = None


def score(
    samples: "Rollout | Sample | Sequence[Rollout | Sample]", *, bootstrap_samples: int = 2000, seed: int = 0
) -> Scores:
    """Means over all rows, with 95 % percentile bootstrap intervals over tasks (or environments) and seeds.

    `last` is the last trial that an environment ran, `best` the largest of its trials. Seeds and tasks are resampled
    crosswise, each with replacement, because every seed has the same tasks and repeating a task gives no information
    about others (Owen 2007, arXiv 0712.1111); rows of one task stay together. If there is a single task, or none is
    named, rows are resampled one by one within each seed. One seed fewer is drawn than there are, which makes their
    variance unbiased (Rao and Wu 1988), and the percentiles are expanded for the number of units drawn (Hesterberg
    2015, arXiv 1411.5279, section 5.3), without which a bootstrap of 16 goals is about 12 % too narrow. If almost all
    variation is between three seeds the interval is still too narrow (it covers about 80 %). Estimates from one task of
    one seed, or from one row, have no interval (NaN), nor does any with `bootstrap_samples=0`. `iqm` is the
    interquartile mean of the rows' means (Agarwal et al. 2021, arXiv 2108.13264). The result is deterministic.

    Args:
        samples: the rollout of one training seed, or one of each.
        bootstrap_samples: number of resamples behind an interval; 0 leaves intervals out.
        seed: seed of the resampling.

    Returns:
        Every trial, first, last, mean, best and IQM, each a value with the bounds of its interval, in units of return.

    Raises:
        RingRLError: no trial ran to its end, a return is infinite, or task ids and returns differ in number.
    """
    parts = list(samples) if isinstance(samples, Sequence) else [samples]
    parts = [check_sample(_make_sample(part)) for part in parts]
    trials = max(part.returns.shape[1] for part in parts)
    values = np.concatenate([row_values(part.returns, trials) for part in parts])  # (rows, n + 4)
    weights = _bootstrap_weights(parts, bootstrap_samples, seed)
    units = make_units(parts)
    estimates = _estimates(values, weights, units)
    means = values[:, trials + SUMMARIES.index("mean")]
    middle = estimate(interquartile_mean(means)[0], interquartile_mean(means, weights), units.behind(means))
    return Scores(tuple(estimates[:trials]), *estimates[trials:], iqm=middle)


def _make_sample(part: "Rollout | Sample") -> Sample:
    return part if isinstance(part, Sample) else Sample(part.trial_returns, part.task_ids)


@dataclasses.dataclass(frozen=True)
class Units:
    """The independent units of rows: tasks, or rows themselves if there is a single task; and their seeds."""

    unit: np.ndarray  # (rows,)
    seed: np.ndarray  # (rows,)
    of_tasks: bool

    def behind(self, values: np.ndarray) -> int:
        """The number of units behind the entries (rows,) that are not NaN; 0 if nothing was repeated."""
        ran = ~np.isnan(values)
        count = len(np.unique(self.unit[ran]))
        return count if count > 1 or len(np.unique(self.seed[ran])) > 1 else 0


def make_units(parts: Sequence[Sample]) -> Units:
    """The units of all rows of several seeds."""
    seeds = np.repeat(np.arange(len(parts)), [len(part.returns) for part in parts])
    tasks = find_shared_tasks(parts)
    if len(tasks) > 1:
        return Units(np.concatenate([np.asarray(part.task_ids) for part in parts]), seeds, True)
    return Units(np.arange(len(seeds)), seeds, False)


def find_shared_tasks(parts: Sequence[Sample]) -> np.ndarray:
    """The tasks, if all samples name theirs; none otherwise."""
    named = [part.task_ids for part in parts if part.task_ids is not None]
    return np.unique(np.concatenate(named)) if len(named) == len(parts) else np.empty(0)


def estimate(value: float, redrawn: np.ndarray, units: int) -> Estimate:
    """A value with the interval of its resamples (NaN are ignored), as wide as Student's t for this many units."""
    redrawn = redrawn[~np.isnan(redrawn)]
    if np.isnan(value) or not units or not redrawn.size:
        return Estimate(NAN if np.isnan(value) else float(value), NAN, NAN)
    tail = _expanded_tail(units)
    low, high = np.quantile(redrawn, [tail, 1.0 - tail])
    return Estimate(float(value), float(low), float(high))


def interquartile_mean(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The mean without the lowest and the highest quarter, (samples,); NaN if a sample is empty.

    Args:
        values: (rows,), none of them NaN.
        weights: (samples, rows) how often each row was drawn; without it each once, as a single sample.
    """
    order = np.argsort(values, kind="stable")
    drawn = np.ones((1, len(values))) if weights is None else weights[:, order]
    until = np.cumsum(drawn, axis=1)
    total = until[:, -1:]
    cut = np.floor(total / 4)
    kept = np.clip(np.minimum(until, total - cut) - np.maximum(until - drawn, cut), 0.0, None)
    center = float(values.mean())
    means = center + kept @ (values[order] - center) / np.maximum(total - 2 * cut, 1.0)[:, 0]
    return np.where(total[:, 0] > 0, means, NAN)


def check_sample(part: Sample) -> Sample:
    """The rows of a sample in which a trial ran; raises RingRLError if it cannot be scored."""
    returns = np.asarray(part.returns, np.float64)
    if returns.ndim != 2 or not returns.size:
        raise RingRLError(f"Returns of shape {returns.shape} cannot be scored: (environments, trials) is needed.")
    ran = ~np.isnan(returns).all(axis=1)
    if not ran.any():
        raise RingRLError("No trial ran to its end, so there is nothing to score: allow a longer context.")
    if np.isinf(returns).any():
        raise RingRLError("A return is infinite, so it cannot be scored: look for a fault in the environment.")
    if part.task_ids is None:
        return Sample(returns[ran])
    task_ids = np.asarray(part.task_ids)
    if task_ids.shape != (len(returns),):
        raise RingRLError(f"{task_ids.size} task ids for {len(returns)} rows of returns: give one for each.")
    return Sample(returns[ran], task_ids[ran])


def row_values(returns: np.ndarray, trials: int) -> np.ndarray:
    """(rows, trials + 4): every trial (NaN-padded), then first, last, mean and best of the row's own trials."""
    rows = np.arange(len(returns))
    ran = ~np.isnan(returns)
    last = returns.shape[1] - 1 - np.argmax(ran[:, ::-1], axis=1)
    first = np.argmax(ran, axis=1)
    filled = np.where(ran, returns, 0.0)
    best = np.where(ran, returns, -np.inf).max(axis=1)
    padding = np.full((len(returns), trials - returns.shape[1]), np.nan)
    ends = (returns[rows, first], returns[rows, last], filled.sum(axis=1) / ran.sum(axis=1), best)
    return np.concatenate([returns, padding, np.stack(ends, axis=1)], axis=1)


def _bootstrap_weights(parts: Sequence[Sample], samples: int, seed: int) -> np.ndarray:
    """How often each row is drawn, (samples, rows)."""
    random = np.random.default_rng(seed)
    seed_draws, tasks = draw_seeds(random, len(parts), samples), find_shared_tasks(parts)
    task_draws = draw_tasks(random, len(tasks), samples) if len(tasks) > 1 else None
    return row_weights(random, parts, seed_draws, tasks, task_draws)


def draw_seeds(random: np.random.Generator, seeds: int, samples: int) -> np.ndarray:
    """How often each seed is drawn, (samples, seeds): one fewer in total than there are."""
    return random.multinomial(max(seeds - 1, 1), np.full(seeds, 1.0 / seeds), size=samples)


def draw_tasks(random: np.random.Generator, tasks: int, samples: int) -> np.ndarray:
    """How often each task is drawn, (samples, tasks)."""
    return random.multinomial(tasks, np.full(tasks, 1.0 / tasks), size=samples)


def row_weights(
    random: np.random.Generator,
    parts: Sequence[Sample],
    seed_draws: np.ndarray,
    tasks: np.ndarray,
    task_draws: np.ndarray | None,
) -> np.ndarray:
    """How often each row is drawn, (samples, rows): seeds and tasks crosswise; without tasks, rows within a seed."""
    weights = []
    for index, part in enumerate(parts):
        if task_draws is not None:
            weights.append(seed_draws[:, [index]] * task_draws[:, np.searchsorted(tasks, np.asarray(part.task_ids))])
            continue
        rows = len(part.returns)  # of a seed drawn m times: m draws of all rows are one multinomial
        weights.append(random.multinomial(seed_draws[:, index] * rows, np.full(rows, 1.0 / rows)))
    return np.concatenate(weights, axis=1).astype(np.float64)


def _estimates(values: np.ndarray, weights: np.ndarray, units: Units) -> list[Estimate]:
    """The mean of each column and its interval over the weighted resamples."""
    center, means = redrawn_means(values, weights)
    return [
        estimate(center[column], means[:, column], units.behind(values[:, column])) for column in range(len(center))
    ]


def redrawn_means(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each column (columns,), and of each resample of it (samples, columns); NaN if a resample is empty."""
    ran = ~np.isnan(values)
    filled = np.where(ran, values, 0.0)
    center = np.where(ran.any(axis=0), filled.sum(axis=0) / np.maximum(ran.sum(axis=0), 1), np.nan)
    drawn = weights @ ran.astype(np.float64)  # (samples, columns)
    centered = np.where(ran, values - np.where(np.isnan(center), 0.0, center), 0.0)  # exact for constant columns
    means = center + (weights @ centered) / np.maximum(drawn, 1.0)
    return center, np.where(drawn > 0, means, np.nan)


def _expanded_tail(units: int) -> float:
    """The tail probability that makes a percentile interval as wide as Student's t for this many units."""
    if units < 2:
        return 0.025
    from scipy.special import ndtr, stdtrit  # the functions behind scipy.stats, which takes a second to import

    return float(ndtr(np.sqrt(units / (units - 1)) * stdtrit(units - 1, 0.025)))
