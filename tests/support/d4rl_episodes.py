"""Episodes of noise in the sizes of D4RL's tasks."""

import dataclasses

import numpy as np

from ringrl.data.sources.d4rl_tasks import find_task

HOPPER = "hopper-medium-v2"


@dataclasses.dataclass
class Fabricated:
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray


def fabricate(task=HOPPER, lengths=(5, 1, 7, 3), ended=(True, False, True, False), seed=0):
    """Episodes of noise in the sizes of a task, its goal included."""
    described, rng = find_task(task), np.random.default_rng(seed)
    size = described.observation_size + (2 if described.goal is not None else 0)
    episodes = []
    for length, end in zip(lengths, ended, strict=True):
        observations = rng.normal(size=(length + 1, size)).astype(np.float32)
        if described.goal is not None:
            observations[:, -2:] = rng.normal(size=2)
        terminations = np.arange(length) == (length - 1 if end else -1)
        actions = rng.uniform(-1, 1, (length, described.action_size)).astype(np.float32)
        episodes.append(Fabricated(observations, actions, rng.normal(size=length).astype(np.float32), terminations))
    return episodes
