"""`ringrl collect`: a Minari data set from an environment and a mix of behaviour policies."""

import collections
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ringrl_envs
from gymnasium.vector import VectorEnv

import ringrl
from ringrl.cli.behaviors import CheckpointBehavior
from ringrl.cli.compose import as_plain
from ringrl.cli.console import output, progress_bar
from ringrl.cli.environments import environment_faults, task_ids, vector_environment
from ringrl.config import BehaviorKind, CollectCommand
from ringrl.data import CollectedEpisode, data_root, write_minari_dataset
from ringrl.data.sources.minari import check_minari_id, minari_root
from ringrl.errors import RingRLError
from ringrl.evaluation.summary import git_commit, write_atomically

RECORD_FILE = "collect.json"  # beside the data: the command that made it
DECIDES_CONTENTS = ("env", "behavior", "split", "episodes_per_task", "num_environments", "seed")


def run(command: CollectCommand, folder: Path) -> None:
    """Collect every episode in memory, write the set whole or not at all, and say how to use it."""
    console, root = output(), data_root()
    check_minari_id(command.dataset)
    target = minari_root(root) / command.dataset
    if target.exists() and not command.overwrite:
        if not command.reuse:
            raise RingRLError(
                f"{command.dataset} exists in {target}: set overwrite=true, reuse=true, or another dataset."
            )
        check_same_command(command, target)
        console.print(f"{command.dataset} is there already: {target}")
        return

    env, began = command.env, time.perf_counter()
    with vector_environment(env, command.num_environments) as environments, environment_faults(env):
        tasks = task_ids(env, command.split)
        with progress_bar("episodes") as advance:
            total = command.episodes_per_task * len(tasks)
            episodes = ringrl_envs.collect_episodes(
                environments,
                behaviors_of(command, environments),
                episodes_per_task=command.episodes_per_task,
                task_ids=tasks,
                seed=command.seed,
                on_progress=lambda _, done: advance(done, total),
            )
        spaces = environments.single_observation_space, environments.single_action_space
    references = reference_scores(command)
    own = references.get("training", {})
    with progress_bar("writing") as advance:
        write_minari_dataset(
            command.dataset,
            [_as_collected(episode) for episode in episodes],
            cache_root=root,
            observation_space=spaces[0],
            action_space=spaces[1],
            env_spec=ringrl_envs.make(env.id, **env.kwargs).spec,
            ref_min_score=own.get("random"),
            ref_max_score=own.get("expert"),
            reference_scores={
                f"{split}/{name}": value
                for split, scores in references.items()
                for name, value in scores.items()
                if value is not None
            }
            or None,
            description=command.description or f"Collected by ringrl collect from {env.id}.",
            algorithm_name=", ".join(command.behavior),
            overwrite=command.overwrite,
            progress=advance,
        )
    plain = as_plain(command)
    write_atomically(target / RECORD_FILE, json.dumps(plain, indent=1))

    summary = {
        "dataset": command.dataset,
        "path": str(target),
        "environment": env.id,
        "tasks": len(tasks),
        **statistics(episodes),
        "seconds": time.perf_counter() - began,
        "reference_scores": references,
        "config": plain,
        "version": ringrl.__version__,
        "git_commit": git_commit(),
    }
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    console.print(
        f"{command.dataset}: {summary['episodes']} episodes, {summary['steps']} steps of {env.id}, "
        f"mean return {summary['mean_return']:.2f}, in {summary['seconds']:.0f} s\n"
        f"  train on it:      ringrl train data=minari data.name={command.dataset}\n"
        f"  open it (Python): MINARI_DATASETS_PATH={minari_root(root)}, minari.load_dataset({command.dataset!r})\n"
        f"  run folder:       {folder}"
    )


def behaviors_of(command: CollectCommand, environments: VectorEnv) -> list[tuple[str, float, ringrl_envs.Behaviour]]:
    """(name, weight, behaviour) of each policy in the mix."""
    found = []
    for name, behavior in command.behavior.items():
        if behavior.weight == 0:
            continue
        if behavior.kind == BehaviorKind.checkpoint:
            acting = CheckpointBehavior(behavior.checkpoint, environments, command.seed)
        else:
            acting = ringrl_envs.make_controller(
                command.env.id, environments, kind=behavior.kind.value, quality=behavior.quality
            )
        found.append((name, behavior.weight, acting))
    return found


def reference_scores(command: CollectCommand) -> dict[str, dict[str, float | None]]:
    """Returns of the random policy and of the controller at its best, per split; empty when not asked for."""
    if not command.reference_episodes:
        return {}
    with environment_faults(command.env):
        return ringrl_envs.reference_scores(
            command.env.id, episodes=command.reference_episodes, seed=command.seed, **command.env.kwargs
        )


def statistics(episodes: Sequence[ringrl_envs.Episode]) -> dict[str, Any]:
    """Counts and returns, over all and per policy name."""
    returns = np.array([episode.rewards.sum() for episode in episodes])
    by_policy = collections.defaultdict(list)
    for episode, value in zip(episodes, returns, strict=True):
        by_policy[episode.policy.split("(")[0]].append(value)
    return {
        "episodes": len(episodes),
        "steps": int(sum(len(episode.rewards) for episode in episodes)),
        "mean_return": float(returns.mean()),
        "best_return": float(returns.max()),
        "policies": {
            name: {"episodes": len(values), "mean_return": float(np.mean(values))} for name, values in by_policy.items()
        },
    }


def check_same_command(command: CollectCommand, target: Path) -> None:
    """Raise RingRLError unless the set at `target` was collected by a command that gives the same contents."""
    try:
        recorded: Mapping[str, Any] = json.loads((target / RECORD_FILE).read_text())
    except (OSError, ValueError):
        raise RingRLError(f"{target} was not made by `ringrl collect`, or not whole: set overwrite=true.") from None
    plain = as_plain(command)
    for name in DECIDES_CONTENTS:
        if recorded.get(name) != plain[name]:
            raise RingRLError(
                f"{command.dataset} in {target} was collected with {name}={recorded.get(name)}, not {plain[name]}: "
                "set overwrite=true, or another dataset."
            )


def _as_collected(episode: ringrl_envs.Episode) -> CollectedEpisode:
    return CollectedEpisode(
        observations=episode.observations,
        actions=episode.actions,
        rewards=episode.rewards,
        terminated=bool(episode.terminations[-1]),
        task_id=episode.task_id,
        policy=episode.policy,
        seed=episode.seed,
    )
