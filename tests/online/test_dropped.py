"""Episodes that the learner's last step truncates are counted and reported."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from ringrl_envs.sync_vector import DisabledSyncVectorEnv

from ringrl.online import OnlineEpisode, SacConfig, learn_online

COUNT, LENGTH = 3, 20


class Clock(gymnasium.Env):
    """Episodes of `LENGTH` steps, whatever is done."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray):
        self.time += 1
        return np.zeros(2, np.float32), 1.0, False, self.time == LENGTH, {}


@pytest.mark.parametrize(
    ("steps_each", "whole", "dropped"),
    [(LENGTH, COUNT, []), (LENGTH + 7, COUNT, [(COUNT, 7 * COUNT)]), (5, 0, [(COUNT, 5 * COUNT)])],
)
def test_what_is_dropped_is_told(steps_each: int, whole: int, dropped: list[Any], config: SacConfig) -> None:
    episodes: list[OnlineEpisode] = []
    told: list[tuple[int, int]] = []
    learn_online(
        DisabledSyncVectorEnv([Clock] * COUNT),
        config,
        steps=steps_each * COUNT,
        seed=0,
        on_episode=episodes.append,
        on_dropped=lambda *counts: told.append(counts),
    )
    assert len(episodes) == whole
    assert told == dropped
    assert sum(len(episode.rewards) for episode in episodes) + sum(steps for _, steps in told) == steps_each * COUNT
