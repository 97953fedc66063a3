"""`ringrl collect`: a data set from an environment and a mix of behavior policies, or from a learner in it."""

import dataclasses
import json
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ringrl_envs
from gymnasium.vector import VectorEnv

import ringrl
from ringrl.cli.behaviors import ACTOR_FILES, make_behaviors
from ringrl.cli.collected import RECORD_FILE, Sink, Tally, find_target, make_sink
from ringrl.cli.compose import as_plain
from ringrl.cli.console import format_return, output, progress_bar
from ringrl.cli.environments import (
    describe_requirements,
    environment_faults,
    environment_metadata,
    task_ids,
    vector_environment,
)
from ringrl.cli.typed import format_override
from ringrl.config import BehaviorKind, CollectCommand, StorageFormat
from ringrl.data import data_root
from ringrl.data.sources.minari_sets import minari_root
from ringrl.errors import RingRLError
from ringrl.evaluation.rollout import check_vector_env
from ringrl.evaluation.summary import git_commit
from ringrl.files import write_atomically
from ringrl.online import RewardKind, learn_online
from ringrl.online.spaces import read_spaces

DECIDES_CONTENTS = ("env", "behavior", "split", "episodes_per_task", "num_environments", "seed")
OF_A_LEARNER = ("steps", "sac")
EPISODES_AT_ONCE = 256  # for a set that is written while it is collected
REWARD_OF = {BehaviorKind.sac: RewardKind.environment, BehaviorKind.rnd: RewardKind.rnd}
SNAPSHOTS = 10  # actors that a learner saves


def run(command: CollectCommand, folder: Path) -> None:
    """Collect every episode, write the set atomically, and print how to use it."""
    command = set_learner_reward(command)
    console, target = output(), find_target(command)
    if target.exists() and not command.overwrite:
        if not command.reuse:
            raise RingRLError(
                f"{command.dataset} exists in {target}: set overwrite=true, reuse=true, or another dataset."
            )
        storage = check_same_command(command, target)
        told = "" if storage == command.format else f" (the same, as {storage}: overwrite=true writes {command.format})"
        console.print(f"{command.dataset} is there already: {target}{told}")
        return

    if command.learner and not command.overwrite and any((folder / "actors").glob(ACTOR_FILES)):
        raise RingRLError(
            f"{folder} has the actors of another learner: set overwrite=true to replace them, or choose another folder "
            "by hydra.run.dir=FOLDER."
        )

    env, began, tally = command.env, time.perf_counter(), Tally()
    with vector_environment(env, command.num_environments) as environments, environment_faults(env):
        tasks = task_ids(env, command.split)
        check_collectable(command, environments)
        if find_step_limit(command, environments) is not None:
            console.print(
                f"{env.id} names no time limit: an episode of over {command.longest_episode} steps ends this."
            )
        sink = make_sink(command, environments)
        try:
            references = reference_scores(command, find_step_limit(command, environments))
            metadata = make_metadata(command, references)
            (learn if command.learner else act)(command, environments, tasks, sink, tally, folder)
            if not tally.episodes:
                raise RingRLError(
                    f"steps={command.steps} over num_environments={command.num_environments}: no episode ended; "
                    "raise steps, or lower num_environments."
                )
            target = sink.finish(**metadata)
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
        f"mean return {format_return(summary['mean_return'])}, in {summary['seconds']:.0f} s\n{usage(command)}"
        f"{describe_requirements(command.env, metadata)}"
        f"  run folder:       {folder}"
    )


def act(
    command: CollectCommand, environments: VectorEnv, tasks: list[int], sink: Sink, tally: Tally, folder: Path
) -> None:
    """Episodes of a mix of behaviors; all at once, or some at a time if they are written while collected."""
    del folder
    behaviors = make_behaviors(command, environments)
    total = command.episodes_per_task * len(tasks)
    at_once = min(total, EPISODES_AT_ONCE) if command.format is StorageFormat.exorl else total
    with progress_bar("episodes") as advance:
        for first in range(0, total, at_once):
            episodes = ringrl_envs.collect_episodes(
                environments,
                behaviors,
                total_episodes=min(at_once, total - first),
                task_ids=tasks,
                seed=_derive_seed(command.seed, first),
                on_progress=lambda _, done, before=first: advance(before + done, total),
                record_physics=sink.physics,
                longest=find_step_limit(command, environments),
            )
            for episode in episodes:
                sink.add(episode)
                tally.add(episode)


def _derive_seed(seed: int, first: int) -> int:
    """The seed of the episodes from `first` on: unique for every pair, so that no two sets share episodes."""
    return int(np.random.SeedSequence([seed, first]).generate_state(1)[0]) if first else seed


def learn(
    command: CollectCommand, environments: VectorEnv, tasks: list[int], sink: Sink, tally: Tally, folder: Path
) -> None:
    """Episodes of a learner's own experience; its actors are saved in the run folder, stage by stage."""
    actors = folder / "actors"
    for stale in actors.glob(ACTOR_FILES):  # of another command in the same folder
        stale.unlink()

    def keep(episode: Any) -> None:
        sink.add(episode)
        tally.add(episode)

    def tell(episodes: int, steps: int) -> None:
        output().print(
            f"{episodes} episodes ({steps:,} steps) had not ended at steps={command.steps} and are left out: a set "
            "holds whole episodes."
        )

    with progress_bar("steps") as advance:
        learn_online(
            environments,
            command.sac,
            steps=command.steps,
            seed=command.seed,
            task_ids=tasks,
            on_episode=keep,
            progress=advance,
            snapshots=actors,
            snapshot_every=max(1, command.steps // SNAPSHOTS),
            on_dropped=tell,
        )


def set_learner_reward(command: CollectCommand) -> CollectCommand:
    """The command with the reward that its learner, if any, maximizes."""
    if command.learner is None:
        return command
    return dataclasses.replace(command, sac=dataclasses.replace(command.sac, reward=REWARD_OF[command.learner]))


def make_metadata(command: CollectCommand, references: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    """The metadata of a Minari set."""
    own = references.get("training", {})
    named = {
        f"{split}/{name}": value
        for split, scores in references.items()
        for name, value in scores.items()
        if value is not None
    }
    return {
        **environment_metadata(command.env),
        "ref_min_score": own.get("random"),
        "ref_max_score": own.get("expert"),
        "reference_scores": named or None,
        "description": command.description or f"Collected by ringrl collect from {command.env.id}.",
        "algorithm_name": ", ".join(command.behavior),
    }


def usage(command: CollectCommand) -> str:
    """Instructions for using the set, in a line or two."""
    if command.format is StorageFormat.exorl:
        domain, collector = command.dataset.split("/")
        return (
            f"  for a task of it: ringrl import source=exorl {format_override('path', command.dataset)} "
            f"{format_override('task', f'{domain}_TASK')} {format_override('name', f'{domain}_TASK_{collector}')}\n"
        )
    environment = f"MINARI_DATASETS_PATH={shlex.quote(str(minari_root(data_root()).absolute()))}"
    code = shlex.quote(f"import minari; print(minari.load_dataset({command.dataset!r}))")
    return (
        f"  train on it:      ringrl train {format_override('data.name', command.dataset)}\n"
        f"  open it (Python): {environment} python -c {code}\n"
    )


def check_collectable(command: CollectCommand, environments: VectorEnv) -> None:
    """Raise RingRLError, before the first step, for an environment whose data `ringrl train` would reject."""
    check_vector_env(environments, None)
    if command.learner is not None:
        read_spaces(environments)


def find_step_limit(command: CollectCommand, environments: VectorEnv) -> int | None:
    """The maximum number of steps of an episode, if the environment itself has no limit."""
    return None if ringrl_envs.max_episode_steps(environments) is not None else command.longest_episode


def reference_scores(command: CollectCommand, longest: int | None) -> dict[str, dict[str, float | None]]:
    """Returns of the random policy and of the controller at its best, per split; empty unless requested."""
    if not command.reference_episodes or command.format is StorageFormat.exorl:  # npz files have no place for them
        return {}
    with environment_faults(command.env), progress_bar("reference scores"):
        return ringrl_envs.reference_scores(
            command.env.id,
            episodes=command.reference_episodes,
            seed=command.seed,
            longest=longest,
            **command.env.kwargs,
        )


def check_same_command(command: CollectCommand, target: Path) -> str:
    """The storage format of the set at `target`, on which contents do not depend: earlier versions used arrow.

    Raises RingRLError unless that set was collected by a command with the same contents.
    """
    try:
        recorded: Mapping[str, Any] = json.loads((target / RECORD_FILE).read_text())
    except (OSError, ValueError):
        raise RingRLError(f"{target} was not made by `ringrl collect`, or not whole: set overwrite=true.") from None
    plain = as_plain(command)
    for name in (*DECIDES_CONTENTS, *(OF_A_LEARNER if command.learner else ())):
        key, theirs, ours = _first_difference(name, recorded.get(name), plain[name])
        if key:
            raise RingRLError(
                f"{command.dataset} in {target} was collected with {key}={theirs}, not {ours}: "
                "set overwrite=true, or another dataset."
            )
    return str(recorded.get("format", StorageFormat.arrow))


def _first_difference(key: str, theirs: Any, ours: Any) -> tuple[str, Any, Any]:
    """Dotted key and values of the first leaf that differs; an empty key if none does."""
    if theirs == ours:
        return "", None, None
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        for name in {**theirs, **ours}:
            found = _first_difference(f"{key}.{name}", theirs.get(name), ours.get(name))
            if found[0]:
                return found
    return key, theirs, ours
