"""Reports: gather runs, pool them over seeds, and write one table and one figure."""

from __future__ import annotations

import dataclasses
import glob
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ringrl.errors import RingRLError
from ringrl.evaluation import figures, tables
from ringrl.evaluation.differences import difference
from ringrl.evaluation.scores import Reference, Sample, Scores, score
from ringrl.evaluation.summary import FILE_NAME, is_evaluation, list_runs, load_summary
from ringrl.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AGENT_LABELS = {"at": "AT", "dt": "DT", "bc10": "BC-10%", "bc": "BC"}  # in the order of tables
MOST_PAIRED = 4  # groups of an environment up to which all pairs are compared; of more, each with the first
NOT_A_DIFFERENCE = re.compile(r"(^|\.)seed$|^(eval\.)?(name|label|resume|debug|checkpoint|hydra)(\.|$)")


@dataclasses.dataclass(frozen=True)
class Group:
    """Pooled runs that differ only in their seed."""

    environment: str
    label: str
    agent: str
    seeds: tuple[int, ...]
    environments: int  # rollouts of n trials behind the numbers, over all seeds
    scores: Scores
    normalized: bool  # scores on the scale on which the references are 0 and 100
    reference: Reference | None = None  # of that scale
    samples: Mapping[int, Sample] = dataclasses.field(default_factory=dict, compare=False)  # by seed, not normalized


def write_report(
    paths: Sequence[Path | str],
    output: Path,
    *,
    normalized: bool = True,
    bootstrap_samples: int = 2000,
    width: int = 120,
) -> str:
    """Gather the runs under files, folders or globs; write table.md, table.csv and figure.png into `output`.

    Runs are pooled over seeds by environment, agent and label (or what differs in their configuration). `normalized`
    takes effect if every run of an environment has the same references. Returns the table as plain text for a terminal
    of `width` columns. Raises `RingRLError` if there is nothing to report.
    """
    return report_runs(
        find_runs(paths), output, normalized=normalized, bootstrap_samples=bootstrap_samples, width=width
    )


def report_runs(
    runs: Sequence[Mapping[str, Any]],
    output: Path,
    *,
    normalized: bool = True,
    bootstrap_samples: int = 2000,
    width: int = 120,
) -> str:
    """Same as `write_report`, for summaries in memory."""
    groups = group_runs(runs, normalized=normalized, bootstrap_samples=bootstrap_samples)
    apart = compare_groups(groups, bootstrap_samples=bootstrap_samples)
    output = Path(output)
    write_atomically(output / "table.md", tables.format_markdown(groups, apart))
    write_atomically(output / "table.csv", tables.format_csv(groups))
    figures.save_png(plot_groups(groups), output / "figure.png")
    return tables.format_text(groups, apart, width=width)


def runs_table(runs: Sequence[Mapping[str, Any]], *, normalized: bool = True, width: int = 120) -> str:
    """The text table of summaries in memory, such as those of one command's agents."""
    return tables.format_text(group_runs(runs, normalized=normalized), width=width)


def runs_figure(runs: Sequence[Mapping[str, Any]], *, normalized: bool = True) -> Figure:
    """The figure of summaries in memory: return by trial, one curve per agent."""
    return plot_groups(group_runs(runs, normalized=normalized))


def evaluation_figure(
    run: Mapping[str, Any], *, step: int, returns: tuple[float, float], earlier: Mapping[int, Sequence[float]]
) -> Figure:
    """Plot return by trial of one evaluation during training.

    Args:
        run: Summary of the evaluation.
        step: Optimizer steps before it.
        returns: A range that the axis covers at least (not normalized): figures that share it can be compared.
        earlier: Mean returns by trial of earlier evaluations, by step.
    """
    (group,) = group_runs([run])
    normalize = group.reference.normalize if group.reference is not None else np.asarray
    before = [normalize(np.array(means, np.float64)).tolist() for _, means in sorted(earlier.items())]
    steps = f"; thin: at {min(earlier)} to {max(earlier)}" if before else ""
    return plot_groups([group], returns=returns, earlier=before, when=f"At training step {step}{steps}. ")


def find_runs(paths: Sequence[Path | str]) -> list[dict[str, Any]]:
    """Every run in the summaries under files, folders or globs, each once; other commands' summaries are skipped.

    Raises `RingRLError` if a path does not exist, a summary is damaged, or no run is found.
    """
    runs: dict[str, dict[str, Any]] = {}
    for path in paths:
        for file in _summary_files(path):
            if is_evaluation(file):
                runs.update((json.dumps(run, sort_keys=True), run) for run in list_runs(load_summary(file)))
    if not runs:
        places = ", ".join(str(path) for path in paths) or "no path"
        raise RingRLError(
            f"No finished run ({FILE_NAME}) under {places}: give run folders of `ringrl train` or `eval`."
        )
    return list(runs.values())


def group_runs(
    runs: Sequence[Mapping[str, Any]], *, normalized: bool = True, bootstrap_samples: int = 2000
) -> list[Group]:
    """Pool runs that differ only in seed; sorted by environment, agent and label."""
    labels = _labels(runs)
    members: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for run, label in zip(runs, labels, strict=True):
        members.setdefault((run["environment"], run["agent"], label), []).append(run)
    groups = []
    for key in sorted(members, key=_sort_key):
        environment, agent, label = key
        reference = _reference([run for run in runs if run["environment"] == environment]) if normalized else None
        by_seed = _samples(members[key])
        scores = score(list(by_seed.values()), bootstrap_samples=bootstrap_samples)
        groups.append(
            Group(
                environment,
                label,
                agent,
                tuple(by_seed),
                sum(len(sample.returns) for sample in by_seed.values()),
                scores if reference is None else scores.normalized(reference),
                reference is not None,
                reference,
                by_seed,
            )
        )
    return groups


def compare_groups(groups: Sequence[Group], *, bootstrap_samples: int = 2000) -> list[tables.Comparison]:
    """Compare each pair of an environment's groups, earlier minus later; of many groups, the first minus each other."""
    comparisons = []
    for environment, found in itertools.groupby(groups, key=lambda group: group.environment):
        members = list(found)
        pairs = itertools.combinations(members, 2)
        if len(members) > MOST_PAIRED:
            pairs = ((members[0], other) for other in members[1:])
        for ours, theirs in pairs:
            apart = difference(ours.samples, theirs.samples, bootstrap_samples=bootstrap_samples)
            apart = apart if ours.reference is None else apart.normalized(ours.reference)
            comparisons.append(tables.Comparison(environment, ours.label, theirs.label, apart))
    return comparisons


def plot_groups(
    groups: Sequence[Group],
    *,
    returns: tuple[float, float] | None = None,
    earlier: Sequence[Sequence[float]] = (),
    when: str = "",
) -> Figure:
    """Plot return by trial: one panel per environment, one curve with its 95 % band per group.

    The axis covers at least the range `returns` (not normalized), and for normalized returns 0, and 100 unless the
    curves would end up at the bottom. `earlier` are additional thin curves, and `when` begins the note.
    """
    panels: dict[str, list[figures.Curve]] = {}
    references: dict[str, dict[str, float]] = {}
    span = None
    for group in groups:
        trials, reference = group.scores.trials, group.reference
        numbers = ([getattr(trial, name) for trial in trials] for name in ("value", "low", "high"))
        curve = figures.Curve(group.label, *numbers, earlier=earlier)
        panels.setdefault(group.environment, []).append(curve)
        highest = max(np.nanmax([*curve.mean, *curve.high]) for curve in panels[group.environment])
        references[group.environment] = {}
        if reference is not None:
            shown = (0, 100) if returns is not None or highest > 40 else (0,)
            names = {
                score: reference.describe(score).replace("(return ", "(return\N{NO-BREAK SPACE}") for score in shown
            }
            references[group.environment] = {f"{score}: {name}": float(score) for score, name in names.items()}
        if returns is not None:
            span = returns if reference is None else tuple(reference.normalize(np.array(returns)).tolist())
    all_normalized, any_normalized = (whether(group.normalized for group in groups) for whether in (all, any))
    ylabels = {group.environment: "Normalized return" if group.normalized else "Return" for group in groups}
    return figures.plot_panels(
        panels,
        ylabel=ylabels if any_normalized and not all_normalized else next(iter(ylabels.values())),
        references=references,
        note=f"{when}{_note(groups)}",
        span=span,
    )


def _note(groups: Sequence[Group]) -> str:
    """Explanation of curves and bands under a figure's title."""
    seeds = sorted({len(group.seeds) for group in groups})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    if not any(trial.has_interval for group in groups for trial in group.scores.trials):
        return "One environment and one seed: no interval"
    return f"Mean and 95 % interval over environments and {count} seed{'s' * (seeds[-1] > 1)}"


def _summary_files(path: Path | str) -> Iterator[Path]:
    places = [Path(path)] if Path(path).exists() else [Path(found) for found in glob.glob(str(path), recursive=True)]
    if not places:
        raise RingRLError(f"{path} does not exist: give run folders, summary files or a glob such as 'runs/train/*'.")
    for place in sorted(places):
        yield from sorted(place.rglob(FILE_NAME)) if place.is_dir() else [place]


def _labels(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each run's own label, else its agent and the settings in which runs of the agent differ."""
    settings = [_flatten(run["config"] or {}) for run in runs]
    peers: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run, own in zip(runs, settings, strict=True):
        if not run.get("label"):
            peers.setdefault((run["environment"], run["agent"]), []).append(own)
    differing = {key: _differing(group) for key, group in peers.items()}
    labels = []
    for run, own in zip(runs, settings, strict=True):
        if run.get("label"):
            labels.append(str(run["label"]))
            continue
        changes = [f"{short}={own.get(key)}" for short, key in differing[run["environment"], run["agent"]]]
        agent = str(run["agent"])
        labels.append(", ".join([AGENT_LABELS.get(agent, agent), *changes]))
    return labels


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The keys whose values differ, each after its shortest unambiguous name."""
    keys = sorted({key for own in settings for key in own})
    keys = [key for key in keys if len({json.dumps(own.get(key)) for own in settings}) > 1]
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return [(tail if last.count(tail) == 1 else key, key) for key, tail in zip(keys, last, strict=True)]


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a nested configuration, without those that do not define a different experiment."""
    flat = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if NOT_A_DIFFERENCE.search(path):
            continue
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{path}."))
        else:
            flat[path] = value
    return flat


def _samples(runs: Sequence[Mapping[str, Any]]) -> dict[int, Sample]:
    """One sample per training seed; runs with the same seed add rows, not seeds."""
    rows: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for run in runs:
        if not run.get("returns"):
            raise RingRLError(
                f"A run of {run['agent']} in {run['environment']} (seed {run['seed']}) has no `returns` in its "
                f"{FILE_NAME}, so it cannot be pooled: evaluate it again with `ringrl eval`."
            )
        returns = np.array(run["returns"], np.float64)  # null becomes NaN
        rows.setdefault(run["seed"], []).append((returns, np.asarray(run.get("task_ids") or np.arange(len(returns)))))
    samples = {}
    for seed in sorted(rows):
        trials = max(returns.shape[1] for returns, _ in rows[seed])
        padded = [np.pad(r, [(0, 0), (0, trials - r.shape[1])], constant_values=np.nan) for r, _ in rows[seed]]
        samples[seed] = Sample(np.concatenate(padded), np.concatenate([tasks for _, tasks in rows[seed]]))
    return samples


def _reference(runs: Sequence[Mapping[str, Any]]) -> Reference | None:
    """The references that all runs share, else None; their names are taken from the first run that has them."""
    told = [run.get("references") for run in runs]
    found = {None if one is None else (float(one["minimum"]), float(one["maximum"])) for one in told}
    shared = found.pop() if len(found) == 1 else None
    if shared is None:
        return None
    named = next((one for one in told if one and one.get("maximum_is")), {})
    return Reference(*shared, str(named.get("minimum_is", "")), str(named.get("maximum_is", "")))


def _sort_key(key: tuple[str, str, str]) -> tuple[Any, ...]:
    environment, agent, label = key
    order = list(AGENT_LABELS)
    natural = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", label) if part]
    return environment, order.index(agent) if agent in order else len(order), agent, natural
