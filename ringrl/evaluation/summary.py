"""`summary.json` and `trials.csv`: the stable record of an evaluation, written atomically."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import ringrl
from ringrl.errors import RingRLError
from ringrl.evaluation.scores import SUMMARIES, Reference, score
from ringrl.files import write_atomically

if TYPE_CHECKING:
    from ringrl.evaluation.rollout import Rollout

FILE_NAME = "summary.json"
TRAIN_FIELDS = ("steps", "tokens", "seconds", "final_loss")
FIELDS = (
    *("agent", "environment", "seed", "trial_returns", "trial_intervals", *SUMMARIES, "normalized", "train"),
    *("config", "version", "git_commit", "data_fingerprint", "device"),
)


def build_summary(
    *,
    agent: str,
    environment: str,
    seed: int,
    rollout: Rollout,
    reference: Reference | None = None,
    train: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    data_fingerprint: str | None = None,
    label: str | None = None,
    bootstrap_samples: int = 2000,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build the summary of one evaluation, as plain JSON: the fields of `FIELDS`, and those that pooling needs.

    Beyond the stable fields: `label` (null: reports name the run by its agent and what its config changes),
    `returns` (environments x trials), `task_ids`, `repeats`, `success` (mean per trial, or null), `references`
    (`{minimum, maximum}` or null), and `extra`. A number that is not finite becomes null.
    """
    scores = score(rollout, bootstrap_samples=bootstrap_samples)
    train = train or {}
    summary = {
        "agent": agent,
        "environment": environment,
        "seed": seed,
        "label": label,
        "trial_returns": [trial.value for trial in scores.trials],
        "trial_intervals": [[trial.low, trial.high] for trial in scores.trials],
        **scores.to_json(),
        "normalized": None if reference is None else scores.normalized(reference).to_json(),
        "references": None if reference is None else dataclasses.asdict(reference),
        "success": None if rollout.trial_success is None else _column_means(rollout.trial_success),
        "train": {name: train.get(name) for name in TRAIN_FIELDS},
        "config": dict(config or {}),
        "version": ringrl.__version__,
        "git_commit": git_commit(),
        "data_fingerprint": data_fingerprint,
        "device": device_name(),
        "returns": rollout.trial_returns,
        "task_ids": rollout.task_ids,
        "repeats": rollout.repeats,
        **(extra or {}),
    }
    return _plain(summary)


def write_summary(summary: Mapping[str, Any] | Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write `folder/summary.json`; several summaries are written as a list under `runs`."""
    values = dict(summary) if isinstance(summary, Mapping) else {"runs": list(summary)}
    path = Path(folder) / FILE_NAME
    write_atomically(path, json.dumps(_plain(values), indent=1, allow_nan=False) + "\n")
    return path


def write_trials(rollout: Rollout, path: Path) -> Path:
    """Write a CSV with one line per trial; a trial that did not run has length 0 and no return."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["environment", "task_id", "repeat", "trial", "return", "length", "success"])
    first_row = {repeat: int(np.argmax(rollout.repeats == repeat)) for repeat in np.unique(rollout.repeats)}
    for row, (task, repeat) in enumerate(zip(rollout.task_ids, rollout.repeats, strict=True)):
        for trial, (value, length) in enumerate(
            zip(rollout.trial_returns[row], rollout.trial_lengths[row], strict=True)
        ):
            success = "" if rollout.trial_success is None else rollout.trial_success[row, trial]
            numbers = ["" if isinstance(x, float) and math.isnan(x) else x for x in (float(value), success)]
            table.writerow([row - first_row[repeat], task, repeat, trial, numbers[0], length, numbers[1]])
    write_atomically(Path(path), text.getvalue())
    return Path(path)


def load_summary(path: Path) -> dict[str, Any]:
    """Read and validate a summary (a file, or a folder that holds `summary.json`); raises a one-line `RingRLError`."""
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RingRLError(f"{path} does not exist: give a run folder that has finished, or a {FILE_NAME}.") from None
    except (OSError, ValueError) as error:
        raise RingRLError(f"{path} cannot be read as JSON ({error}): run the evaluation again.") from error
    runs = values["runs"] if isinstance(values, dict) and isinstance(values.get("runs"), list) else [values]
    for run in runs:
        _check(run, path)
    return values


def is_evaluation(file: Path) -> bool:
    """False for a readable summary of another command; damaged files are left to `load_summary`."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    return not isinstance(values, dict) or "trial_returns" in values or bool(values.get("runs"))


def list_runs(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The summaries of the individual runs in a summary: those under `runs`, or itself."""
    return list(summary["runs"]) if "runs" in summary else [dict(summary)]


@functools.cache
def git_commit() -> str | None:
    """The commit of the checkout from which this package runs; None for an installed copy."""
    package = Path(__file__).resolve().parent.parent
    try:
        git = functools.partial(subprocess.run, cwd=package, capture_output=True, text=True, timeout=10, check=True)
        git(["git", "ls-files", "--error-unmatch", "__init__.py"])  # another project's checkout does not count
        return git(["git", "rev-parse", "HEAD"]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def device_name() -> str:
    """Kind and number of this run's devices, such as `cpu` or `4 x NVIDIA H100 80GB HBM3`."""
    import jax

    devices = jax.devices()
    return devices[0].device_kind if len(devices) == 1 else f"{len(devices)} x {devices[0].device_kind}"


def _check(run: Any, path: Path) -> None:
    """Raise an error that names the field if a summary violates the format."""
    if not isinstance(run, dict) or "trial_returns" not in run:
        raise RingRLError(f"{path} has no `trial_returns`: it is not the summary of an evaluation.")
    missing = [name for name in FIELDS if name not in run]
    if missing:
        raise RingRLError(f"{path} lacks `{missing[0]}`: it was not written by ringrl, or not whole.")
    count = len(run["trial_returns"]) if isinstance(run["trial_returns"], list) else 0
    if not count or not isinstance(run["trial_intervals"], list) or len(run["trial_intervals"]) != count:
        raise RingRLError(f"{path}: `trial_returns` and `trial_intervals` must be lists of the same length, not empty.")
    groups = [run] + ([run["normalized"]] if run["normalized"] is not None else [])
    for group in groups:
        for name in SUMMARIES:
            if not isinstance(group.get(name), dict) or not {"value", "low", "high"} <= group[name].keys():
                raise RingRLError(f"{path}: `{name}` must be an object with value, low and high.")
    returns = run.get("returns")
    if returns is not None and (not returns or any(len(row) != count for row in returns)):
        raise RingRLError(f"{path}: `returns` must hold a row of {count} trials per environment.")


def _column_means(values: np.ndarray) -> list[float | None]:
    ran = ~np.isnan(values)
    return [float(values[ran[:, i], i].mean()) if ran[:, i].any() else None for i in range(values.shape[1])]


def _is_jax_array(value: Any) -> bool:
    jax: Any = sys.modules.get("jax")  # a process without JAX has no JAX arrays
    return jax is not None and isinstance(value, jax.Array)


def _plain(value: Any) -> Any:
    """Plain JSON values of nested mappings, sequences, arrays, dataclasses, enums and paths."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if _is_jax_array(value):
        value = np.asarray(value).tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return str(value)
