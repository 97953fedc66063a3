"""`ringrl import`: external data, read once and stored as an episode store."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import ringrl_envs
from ringrl_envs.registry import find_spec

import ringrl
from ringrl.cli.collected import RECORD_FILE
from ringrl.cli.compose import as_plain
from ringrl.cli.console import format_return, output, progress_bar
from ringrl.cli.data import report_violations, returns_figure
from ringrl.cli.environments import environment_faults
from ringrl.cli.typed import format_override
from ringrl.config import EnvConfig, ImportCommand, ImportSource, Rewards
from ringrl.data import EpisodeStore, check_store, data_root, store_statistics
from ringrl.data.sources.d4rl import build_from_d4rl, task_of_file
from ringrl.data.sources.exorl import build_from_exorl
from ringrl.data.sources.minari import build_from_minari
from ringrl.data.sources.minari_sets import find_minari_set, minari_root
from ringrl.errors import RingRLError
from ringrl.evaluation.figures import save_png
from ringrl.evaluation.summary import git_commit
from ringrl.files import write_atomically
from ringrl.types import ActionKind, ActionSpec

Progress = Callable[[int, int], None]


def run(command: ImportCommand, folder: Path) -> None:
    """Build the store atomically, check every value of it, and write its statistics into `folder`."""
    console, began = output(), time.perf_counter()
    target = data_root() / "stores" / command.name
    if target.exists() and not command.overwrite:
        raise RingRLError(f"{target} exists: set overwrite=true to replace it, or give another name.")
    with progress_bar("importing") as advance:
        store = BUILD[command.source](command, target, advance)
    seconds = time.perf_counter() - began
    with progress_bar("checking") as advance:
        violations = check_store(store, progress=advance)
    report_violations(violations, f"{command.path} as {target}")

    statistics = store_statistics(store)
    save_png(returns_figure(store, command.name), folder / "returns.png")
    summary = {
        "name": command.name,
        "path": str(store.path),
        "data_fingerprint": store.fingerprint,
        "environment": store.metadata.get("environment"),
        "references": {key: store.metadata.get(key) for key in ("ref_min_score", "ref_max_score")},
        **statistics,
        "seconds": seconds,
        "config": as_plain(command),
        "version": ringrl.__version__,
        "git_commit": git_commit(),
    }
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    console.print(
        f"{command.name}: {store.num_episodes} episodes, {store.num_steps} steps, {store.step_bytes / 1e6:.1f} MB, "
        f"mean return {format_return(float(store.returns.mean()))}, in {seconds:.1f} s\n"
        f"  train on it:  ringrl train data=store {format_override('data.name', command.name)}\n"
        f"  look at it:   ringrl data data=store {format_override('data.name', command.name)}\n"
        f"  run folder:   {folder}"
    )


def import_d4rl(command: ImportCommand, target: Path, progress: Progress) -> EpisodeStore:
    """Import a D4RL HDF5 file; its task is given, or taken from its name."""
    file = Path(command.path).expanduser()
    task = command.task or task_of_file(file)
    return build_from_d4rl(file, task, target, progress, overwrite=command.overwrite)


def import_exorl(command: ImportCommand, target: Path, progress: Progress) -> EpisodeStore:
    """Import a folder of ExoRL episodes, with the rewards of a task of its domain."""
    folder = exorl_folder(command.path)
    with environment_faults(EnvConfig(command.task)):
        environment = ringrl_envs.dmc_id(command.task)
        relabeller = ringrl_envs.Relabeller(environment)
        low, high = relabeller.action_bounds()
        limit = collected_limit(folder) or find_spec(environment).max_episode_steps
    return build_from_exorl(
        folder,
        target,
        task=command.task,
        action=ActionSpec(ActionKind.continuous, len(low), tuple(map(float, low)), tuple(map(float, high))),
        environment=environment,
        max_episode_steps=limit or 0,
        observation_size=relabeller.observation_size,
        policy=(folder.parent if folder.name == "buffer" else folder).name,
        relabel=relabeller if command.reward is Rewards.relabel else None,
        workers=command.workers or len(os.sched_getaffinity(0)),
        limit=command.limit,
        overwrite=command.overwrite,
        progress=progress,
    )


def import_minari(command: ImportCommand, target: Path, progress: Progress) -> EpisodeStore:
    """Import a Minari set in the same way as `data=minari`."""
    folder = find_minari_set(command.path, minari_root(data_root()), command.download)
    return build_from_minari(command.path, folder, target, progress, overwrite=command.overwrite)


BUILD: dict[ImportSource, Callable[[ImportCommand, Path, Progress], EpisodeStore]] = {
    ImportSource.d4rl: import_d4rl,
    ImportSource.exorl: import_exorl,
    ImportSource.minari: import_minari,
}


def collected_limit(folder: Path) -> int | None:
    """The time limit of a folder written by `ringrl collect format=exorl`."""
    try:
        told = json.loads((folder.parent / RECORD_FILE).read_text())
        return int(told["env"]["kwargs"]["max_episode_steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def exorl_folder(path: str) -> Path:
    """The folder of npz files at `path`: itself, its `buffer`, or the output of `ringrl collect format=exorl`."""
    given = Path(path).expanduser()
    collected = data_root() / "exorl" / path
    for folder in (given / "buffer", given, collected / "buffer", collected):
        if folder.is_dir():
            return folder
    raise RingRLError(f"path={path}: no such folder, nor {collected}: give one of ExoRL's npz files.")
