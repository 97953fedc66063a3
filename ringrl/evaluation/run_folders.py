"""Run folders of an experiment: finished runs, the latest of each kind, and unfinished ones."""

import dataclasses
import datetime
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ringrl.errors import ERROR_FILE, RingRLError
from ringrl.evaluation.summary import FILE_NAME, is_evaluation, list_runs, load_summary

STARTED = ("config.yaml", "checkpoints", ERROR_FILE)  # a started run has at least one of these
NOT_RUNS = ("checkpoints", ".hydra")  # folders within a run
DATED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(-\d+)?")
NAMED_AT_MOST = 6


@dataclasses.dataclass(frozen=True)
class UnfinishedRun:
    """A run without results: still running, stopped, or failed."""

    folder: Path
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class LatestRuns:
    """The latest runs of one experiment."""

    runs: list[dict[str, Any]]
    older: int  # finished runs omitted because a later one has the same agent, seed and label
    unfinished: list[UnfinishedRun]  # the newest first


def latest_runs(folder: Path) -> LatestRuns:
    """The latest finished runs of each environment, agent, seed and label in a folder of launches.

    A launch is a single run or a sweep; runs of one sweep that differ in other settings all count. A run whose summary
    cannot be read counts as unfinished. Raises RingRLError if no run is finished.
    """
    newest: dict[tuple[Any, ...], tuple[str, list[dict[str, Any]]]] = {}
    unfinished: list[tuple[str, UnfinishedRun]] = []
    count = 0
    for launch in sorted(path for path in folder.glob("*") if path.is_dir()):
        moment = _moment(launch)
        unfinished += [(moment, one) for one in unfinished_runs([launch])]
        for run in _runs_under(launch):
            count += 1
            key = tuple(str(run.get(name)) for name in ("environment", "agent", "seed", "label"))
            when, runs = newest.get(key, ("", []))
            if moment > when:
                newest[key] = moment, [run]
            elif moment == when:
                runs.append(run)
    kept = [run for _, runs in newest.values() for run in runs]
    found = [one for _, one in sorted(unfinished, key=lambda pair: pair[0], reverse=True)]
    if not kept:
        raise RingRLError(f"No finished run in {folder}{f'; {unfinished_line(found, folder)}' if found else '.'}")
    return LatestRuns(kept, count - len(kept), found)


def unfinished_runs(paths: Sequence[Path | str]) -> list[UnfinishedRun]:
    """The runs under these folders that have started but have no readable summary, by their names."""
    found = []
    for folder in (folder for path in paths for folder in _folders(Path(path))):
        if (folder / FILE_NAME).exists():
            try:
                if is_evaluation(folder / FILE_NAME):
                    load_summary(folder)
            except RingRLError as error:
                found.append(UnfinishedRun(folder, str(error)))
        elif any((folder / name).exists() for name in STARTED):
            found.append(UnfinishedRun(folder, _reason(folder)))
    return found


def unfinished_line(found: Sequence[UnfinishedRun], folder: Path | None = None) -> str:
    """The number and names of unfinished runs in one line; names are relative to `folder`."""
    names = []
    for one in found[:NAMED_AT_MOST]:
        inside = folder is not None and one.folder != folder and one.folder.is_relative_to(folder)
        name = one.folder.relative_to(folder) if inside and folder is not None else one.folder
        names.append(f"{name} ({one.reason})" if one.reason else str(name))
    more = [f"and {len(found) - NAMED_AT_MOST} more"] if len(found) > NAMED_AT_MOST else []
    return f"not finished (running, stopped or failed): {len(found)}: {', '.join([*names, *more])}."


def _runs_under(folder: Path) -> Iterator[dict[str, Any]]:
    """Every finished run of a launch, each once; unreadable ones are left to `unfinished_runs`."""
    seen: list[dict[str, Any]] = []
    for place in _folders(folder):
        file = place / FILE_NAME
        try:
            if not file.exists() or not is_evaluation(file):
                continue
            runs = list_runs(load_summary(file))
        except RingRLError:
            continue
        for run in runs:
            if run not in seen:
                seen.append(run)
                yield run


def _folders(root: Path) -> Iterator[Path]:
    for place, names, _ in os.walk(root):
        names[:] = sorted(name for name in names if name not in NOT_RUNS)
        yield Path(place)


def _moment(launch: Path) -> str:
    """The start time of a launch: the date in its name, or else the times of its files."""
    found = DATED.match(launch.name)
    if found:
        return found.group()
    changed = max((file.stat().st_mtime for file in launch.rglob(FILE_NAME)), default=launch.stat().st_mtime)
    return datetime.datetime.fromtimestamp(changed).strftime("%Y-%m-%d_%H-%M-%S-%f")


def _reason(folder: Path) -> str:
    try:
        return (folder / ERROR_FILE).read_text(encoding="utf-8").strip().partition("\n")[0].rstrip(".")
    except OSError:
        return ""
