"""Reference scores: what random and the best scripted behavior earn, per split of tasks."""

from typing import Any

import numpy as np

from ringrl_envs.collection import collect_episodes
from ringrl_envs.controllers import find_expert, make_controller
from ringrl_envs.registry import OWN, find_spec, make_vector, task_ids

FAST_BATCH = 256
SLOW_BATCH = 16  # environments stepped one after the other gain nothing from a larger batch

Scores = dict[str, dict[str, float | None]]


def reference_scores(
    env_id: str, *, episodes: int = 256, seed: int = 0, longest: int | None = None, **kwargs: Any
) -> Scores:
    """{"training" and "held_out": {"random": mean return, "expert": mean return or None without a controller}}.

    At least `episodes` episodes per number, the same number on every task of the split; the expert is the scripted
    controller at quality 1. An environment without tasks, or without held-out ones, has the same numbers in both.

    Raises:
        ValueError: unknown id, arguments that the environment does not take, or an episode of more than `longest`
            steps.
    """
    vector_env = make_vector(env_id, batch_size(env_id, episodes), **kwargs)
    behaviours = {"random": make_controller(env_id, vector_env, kind="random"), "expert": None}
    if find_expert(env_id) is not None:
        behaviours["expert"] = make_controller(env_id, vector_env, quality=1.0)
    scores: Scores = {}
    for split in ("training", "held_out"):
        ids = task_ids(env_id, split, **kwargs)
        if split == "held_out" and ids in ([], task_ids(env_id, "training", **kwargs)):
            scores[split] = dict(scores["training"])
            continue
        scores[split] = {}
        for name, behaviour in behaviours.items():
            scores[split][name] = None
            if behaviour is not None:
                collected = collect_episodes(
                    vector_env,
                    [(name, 1.0, behaviour)],
                    episodes_per_task=-(-episodes // len(ids)),
                    task_ids=ids,
                    seed=seed,
                    longest=longest,
                )
                scores[split][name] = float(np.mean([episode.rewards.sum() for episode in collected]))
    vector_env.close()
    return scores


def batch_size(env_id: str, episodes: int) -> int:
    """A good number of sub-environments to collect this many episodes with."""
    return min(episodes, FAST_BATCH if find_spec(env_id).id in OWN else SLOW_BATCH)
