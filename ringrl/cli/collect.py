"""`ringrl collect`: a data set from an environment and a mix of behaviour policies, or from a learner at work there."""

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ringrl_envs
from gymnasium.vector import VectorEnv

import ringrl
from ringrl.cli.behaviors import behaviors_of
from ringrl.cli.collected import Sink, Tally, make_sink, target_of
from ringrl.cli.compose import as_plain
from ringrl.cli.console import output, progress_bar
from ringrl.cli.environments import environment_faults, task_ids, vector_environment
from ringrl.config import BehaviorKind, CollectCommand, StorageFormat
from ringrl.data import data_root
from ringrl.data.sources.minari import minari_root
from ringrl.errors import RingRLError
from ringrl.evaluation.summary import git_commit, write_atomically
from ringrl.online import RewardKind, learn_online

RECORD_FILE = "collect.json"  # beside the data: the command that made it
DECIDES_CONTENTS = ("env", "behavior", "split", "episodes_per_task", "num_environments", "seed")
OF_A_LEARNER = ("steps", "sac")
EPISODES_AT_ONCE = 256  # of a set that is written as it is collected
REWARD_OF = {BehaviorKind.sac: RewardKind.environment, BehaviorKind.rnd: RewardKind.rnd}
SNAPSHOTS = 10  # actors that a learner leaves


def run(command: CollectCommand, folder: Path) -> None:
    """Collect every episode, write the set whole or not at all, and say how to use it."""
    console, target = output(), target_of(command)
    if target.exists() and not command.overwrite:
        if not command.reuse:
            raise RingRLError(
                f"{command.dataset} exists in {target}: set overwrite=true, reuse=true, or another dataset."
            )
        check_same_command(command, target)
        console.print(f"{command.dataset} is there already: {target}")
        return

    env, began, tally = command.env, time.perf_counter(), Tally()
    with vector_environment(env, command.num_environments) as environments, environment_faults(env):
        tasks = task_ids(env, command.split)
        sink = make_sink(command, environments)
        try:
            if command.learner:
                learn(command, command.learner, environments, sink, tally, folder)
            else:
                act(command, environments, tasks, sink, tally)
            references = reference_scores(command)
            target = sink.finish(**metadata_of(command, references))
        finally:
            sink.abort()
    plain = as_plain(command)
    write_atomically(target / RECORD_FILE, json.dumps(plain, indent=1))

    summary = {
        "dataset": command.dataset,
        "path": str(target),
        "environment": env.id,
        "tasks": len(tasks),
        **tally.statistics(),
        "seconds": time.perf_counter() - began,
        "reference_scores": references,
        "config": plain,
        "version": ringrl.__version__,
        "git_commit": git_commit(),
    }
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    console.print(
        f"{command.dataset}: {summary['episodes']} episodes, {summary['steps']} steps of {env.id}, "
        f"mean return {summary['mean_return']:.2f}, in {summary['seconds']:.0f} s\n{usage(command)}"
        f"  run folder:       {folder}"
    )


def act(command: CollectCommand, environments: VectorEnv, tasks: list[int], sink: Sink, tally: Tally) -> None:
    """Episodes of a mix of behaviours; all at once, or some at a time where they are written as they come."""
    behaviors = behaviors_of(command, environments)
    total = command.episodes_per_task * len(tasks)
    at_once = min(total, EPISODES_AT_ONCE) if command.format is StorageFormat.exorl else total
    with progress_bar("episodes") as advance:
        for first in range(0, total, at_once):
            episodes = ringrl_envs.collect_episodes(
                environments,
                behaviors,
                total_episodes=min(at_once, total - first),
                task_ids=tasks,
                seed=command.seed + first,
                on_progress=lambda _, done, before=first: advance(before + done, total),
                record_physics=sink.physics,
            )
            for episode in episodes:
                sink.add(episode)
                tally.add(episode)


def learn(
    command: CollectCommand, learner: BehaviorKind, environments: VectorEnv, sink: Sink, tally: Tally, folder: Path
) -> None:
    """Every episode of a learner's own experience; its actors go into the run folder, stage by stage."""

    def keep(episode: Any) -> None:
        sink.add(episode)
        tally.add(episode)

    with progress_bar("steps") as advance:
        learn_online(
            environments,
            dataclasses.replace(command.sac, reward=REWARD_OF[learner]),
            steps=command.steps,
            seed=command.seed,
            on_episode=keep,
            progress=advance,
            snapshots=folder / "actors",
            snapshot_every=max(1, command.steps // SNAPSHOTS),
        )


def metadata_of(command: CollectCommand, references: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    """What a Minari set says of itself."""
    own = references.get("training", {})
    named = {
        f"{split}/{name}": value
        for split, scores in references.items()
        for name, value in scores.items()
        if value is not None
    }
    return {
        "env_spec": ringrl_envs.make(command.env.id, **command.env.kwargs).spec,
        "ref_min_score": own.get("random"),
        "ref_max_score": own.get("expert"),
        "reference_scores": named or None,
        "description": command.description or f"Collected by ringrl collect from {command.env.id}.",
        "algorithm_name": ", ".join(command.behavior),
    }


def usage(command: CollectCommand) -> str:
    """How to go on, in a line or two."""
    if command.format is StorageFormat.exorl:
        domain, collector = command.dataset.split("/")
        return (
            f"  for a task of it: ringrl import source=exorl path={command.dataset} task={domain}_TASK "
            f"name={domain}_TASK_{collector}\n"
        )
    root = minari_root(data_root())
    return (
        f"  train on it:      ringrl train data=minari data.name={command.dataset}\n"
        f"  open it (Python): MINARI_DATASETS_PATH={root}, minari.load_dataset({command.dataset!r})\n"
    )


def reference_scores(command: CollectCommand) -> dict[str, dict[str, float | None]]:
    """Returns of the random policy and of the controller at its best, per split; empty when not asked for."""
    if not command.reference_episodes:
        return {}
    with environment_faults(command.env):
        return ringrl_envs.reference_scores(
            command.env.id, episodes=command.reference_episodes, seed=command.seed, **command.env.kwargs
        )


def check_same_command(command: CollectCommand, target: Path) -> None:
    """Raise RingRLError unless the set at `target` was collected by a command that gives the same contents."""
    try:
        recorded: Mapping[str, Any] = json.loads((target / RECORD_FILE).read_text())
    except (OSError, ValueError):
        raise RingRLError(f"{target} was not made by `ringrl collect`, or not whole: set overwrite=true.") from None
    plain = as_plain(command)
    for name in (*DECIDES_CONTENTS, *(OF_A_LEARNER if command.learner else ())):
        if recorded.get(name) != plain[name]:
            raise RingRLError(
                f"{command.dataset} in {target} was collected with {name}={recorded.get(name)}, not {plain[name]}: "
                "set overwrite=true, or another dataset."
            )
