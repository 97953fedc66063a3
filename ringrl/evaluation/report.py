"""Gather runs, pool them over seeds, and write one table and one figure."""

from __future__ import annotations

import dataclasses
import glob
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ringrl.errors import RingRLError
from ringrl.evaluation import figures, tables
from ringrl.evaluation.scores import Reference, Sample, Scores, score
from ringrl.evaluation.summary import FILE_NAME, load_summary, runs_of, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AGENT_LABELS = {"at": "AT", "dt": "DT", "bc10": "BC-10%", "bc": "BC"}  # in the order of tables
NOT_A_DIFFERENCE = re.compile(r"(^|\.)seed$|^(eval\.)?(name|label|resume|debug|checkpoint|hydra)(\.|$)")


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed, pooled."""

    environment: str
    label: str
    agent: str
    seeds: tuple[int, ...]
    environments: int  # rollouts of n trials behind the numbers, over all seeds
    scores: Scores
    normalized: bool  # scores on the scale where the references are 0 and 100


def write_report(
    paths: Sequence[Path | str],
    output: Path,
    *,
    normalized: bool = True,
    bootstrap_samples: int = 2000,
    width: int = 120,
) -> str:
    """Gather the runs under files, folders or globs; write table.md, table.csv and figure.png into `output`.

    Runs are pooled over seeds by environment, agent and label (or what differs in their configuration).
    `normalized` is heeded where every run of an environment has the same references. Returns the table as plain
    text for a terminal of `width` columns. Raises `RingRLError` where there is nothing to report.
    """
    groups = group_runs(find_runs(paths), normalized=normalized, bootstrap_samples=bootstrap_samples)
    output = Path(output)
    write_atomically(output / "table.md", tables.markdown(groups))
    write_atomically(output / "table.csv", tables.comma_separated(groups))
    figures.save_png(plot_groups(groups), output / "figure.png")
    return tables.text(groups, width=width)


def runs_table(runs: Sequence[Mapping[str, Any]], *, normalized: bool = True, width: int = 120) -> str:
    """The text table of summaries at hand, such as those of one command's agents."""
    return tables.text(group_runs(runs, normalized=normalized), width=width)


def runs_figure(runs: Sequence[Mapping[str, Any]], *, normalized: bool = True) -> Figure:
    """The figure of summaries at hand: return by trial, one curve per agent."""
    return plot_groups(group_runs(runs, normalized=normalized))


def find_runs(paths: Sequence[Path | str]) -> list[dict[str, Any]]:
    """Every run in the summaries under files, folders or globs, each once; other commands' summaries are passed over.

    Raises `RingRLError` where a path does not exist, a summary is damaged, or no run is found.
    """
    runs: dict[str, dict[str, Any]] = {}
    for path in paths:
        for file in _summary_files(path):
            if _is_evaluation(file):
                runs.update((json.dumps(run, sort_keys=True), run) for run in runs_of(load_summary(file)))
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
            )
        )
    return groups


def plot_groups(groups: Sequence[Group]) -> Figure:
    """Return by trial: one panel per environment, one curve with its 95 % band per group."""
    panels: dict[str, list[figures.Curve]] = {}
    references: dict[str, dict[str, float]] = {}
    for group in groups:
        trials = group.scores.trials
        curve = figures.Curve(group.label, *([getattr(t, name) for t in trials] for name in ("value", "low", "high")))
        panels.setdefault(group.environment, []).append(curve)
        highest = max(max(curve.high) for curve in panels[group.environment])
        references[group.environment] = {"reference": 100.0} if group.normalized and highest > 40 else {}
    all_normalized = all(group.normalized for group in groups)
    seeds = sorted({len(group.seeds) for group in groups})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return figures.plot_panels(
        panels,
        ylabel="Normalised return" if all_normalized else "Return",
        references=references,
        note=f"Mean and 95 % interval over environments and {count} seed{'s' * (seeds[-1] > 1)}",
    )


def _summary_files(path: Path | str) -> Iterator[Path]:
    places = [Path(path)] if Path(path).exists() else [Path(found) for found in glob.glob(str(path), recursive=True)]
    if not places:
        raise RingRLError(f"{path} does not exist: give run folders, summary files or a glob such as 'runs/train/*'.")
    for place in sorted(places):
        yield from sorted(place.rglob(FILE_NAME)) if place.is_dir() else [place]


def _is_evaluation(file: Path) -> bool:
    """False for a readable summary of another kind of command; damaged files are left to `load_summary`."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    return not isinstance(values, dict) or "trial_returns" in values or bool(values.get("runs"))


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
    """Dotted keys of a nested configuration, without those that do not make another experiment."""
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
    """One sample per training seed: runs of the same seed add rows, they are not further seeds."""
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
    """The references that all runs share, else None."""
    found = {json.dumps(run.get("references"), sort_keys=True) for run in runs}
    values = json.loads(found.pop()) if len(found) == 1 else None
    return None if values is None else Reference(**values)


def _sort_key(key: tuple[str, str, str]) -> tuple[Any, ...]:
    environment, agent, label = key
    order = list(AGENT_LABELS)
    natural = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", label) if part]
    return environment, order.index(agent) if agent in order else len(order), agent, natural
