"""Collecting: exact counts, whole episodes, the same ones for the same seed."""

import contextlib
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import ringrl_envs
from gymnasium import spaces
from ringrl_envs.controllers.graded import RandomController
from ringrl_envs.sync_vector import DisabledSyncVectorEnv

DARK_ROOM = "ringrl/DarkRoom-v0"


def collect(env_id=DARK_ROOM, num_envs=7, mix=(0.5, 0.5), seed=0, env_kwargs=None, **kwargs):
    vector = ringrl_envs.make_vector(env_id, num_envs, **(env_kwargs or {}))
    kinds = ["scripted", "random"] if ringrl_envs.find_expert(env_id) else ["random"]
    behaviours = [
        (kind, weight, ringrl_envs.make_controller(env_id, vector, kind=kind))
        for kind, weight in zip(kinds, mix, strict=False)
    ]
    episodes = ringrl_envs.collect_episodes(vector, behaviours, seed=seed, **kwargs)
    vector.close()
    return episodes


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert (one.task_id, one.policy, one.seed) == (other.task_id, other.policy, other.seed)
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("env_id", [DARK_ROOM, "ringrl/HiddenGoalPointMaze-v0", "CartPole-v1"])
def test_same_seed_same_episodes(env_id):
    kwargs = {"env_id": env_id, "total_episodes": 20}
    assert_same(collect(**kwargs), collect(**kwargs))
    different = collect(**kwargs, seed=1)
    assert any(
        len(a.rewards) != len(b.rewards) or (a.actions != b.actions).any()
        for a, b in zip(collect(**kwargs), different, strict=True)
    )


def test_counts_are_exact_per_task_and_per_behavior_however_long_the_episodes():
    episodes = collect(episodes_per_task=6, mix=(0.75, 0.25), env_kwargs={"size": 5, "reward": "sparse"})
    tasks = [episode.task_id for episode in episodes]
    assert np.bincount(tasks).tolist() == [6] * 20
    assert sum(episode.policy == "random" for episode in episodes) == 30
    assert sum(episode.policy.startswith("scripted(q=0.") for episode in episodes) == 90
    lengths = {len(episode.rewards) for episode in episodes}
    assert len(lengths) > 5
    for episode in episodes:
        ended = episode.terminations | episode.truncations
        assert ended.tolist() == [False] * (len(ended) - 1) + [True]
        assert len(episode.observations) == len(episode.actions) + 1 == len(episode.rewards) + 1
        assert episode.terminations[-1] == (episode.rewards.sum() == 1.0)


def test_an_episode_replays_from_its_seed_task_and_actions():
    for env_id in (DARK_ROOM, "CartPole-v1", "Pendulum-v1"):
        for episode in collect(env_id, num_envs=3, total_episodes=5):
            env = ringrl_envs.make(env_id)
            options = {"task_id": episode.task_id} if env_id == DARK_ROOM else None
            observation, _ = env.reset(seed=episode.seed, options=options)
            np.testing.assert_array_equal(observation, episode.observations[0])
            for step, action in enumerate(episode.actions):
                observation, reward, terminated, truncated, _ = env.step(action)
                np.testing.assert_array_equal(observation, episode.observations[step + 1])
                assert reward == pytest.approx(episode.rewards[step], abs=1e-12)
                assert (terminated, truncated) == (episode.terminations[step], episode.truncations[step])


def test_episodes_longer_than_the_first_buffers_and_more_environments_than_episodes():
    episodes = collect("Pendulum-v1", num_envs=4, total_episodes=3)
    assert [len(episode.rewards) for episode in episodes] == [200, 200, 200]
    assert episodes[0].actions.shape == (200, 1)
    assert episodes[0].actions.dtype == np.float32


def test_chosen_tasks_are_dealt_in_turn():
    episodes = collect(total_episodes=7, task_ids=[70, 3, 80])
    assert [episode.task_id for episode in episodes] == [70, 3, 80, 70, 3, 80, 70]


def test_progress_is_told():
    told = []
    episodes = collect(episodes_per_task=1, on_progress=lambda steps, done: told.append((steps, done)))
    assert told[-1] == (sum(len(episode.rewards) for episode in episodes), 65)
    assert told == sorted(told)


class Listener:
    """A behavior with memory: it must receive the start and the outcome of each of its own episodes."""

    def __init__(self, num_envs):
        self.active = np.zeros(num_envs, bool)
        self.steps = 0
        self.returns = []
        self.sums = np.zeros(num_envs)

    def reset(self, mask, rng):
        assert not self.active[mask].any()
        self.active |= mask
        self.sums[mask] = 0.0

    def act(self, observations, rng):
        return np.full(len(observations), 4)

    def observe(self, rewards, finished, mask):
        np.testing.assert_array_equal(mask, self.active)
        self.steps += int(mask.sum())
        self.sums += rewards * mask
        self.returns += self.sums[mask & finished].tolist()
        self.active &= ~finished


def test_a_behavior_with_memory_hears_of_its_own_episodes_only():
    vector = ringrl_envs.make_vector(DARK_ROOM, 5)
    listener = Listener(5)
    behaviours = [
        ("random", 1.0, ringrl_envs.make_controller(DARK_ROOM, vector, kind="random")),
        ("own", 1.0, listener),
    ]
    episodes = ringrl_envs.collect_episodes(vector, behaviours, total_episodes=40)
    own = [episode for episode in episodes if episode.policy == "own"]
    assert len(own) == 20
    assert listener.steps == 20 * 20
    assert sorted(listener.returns) == sorted(episode.rewards.sum() for episode in own)
    assert all((episode.actions == 4).all() for episode in own)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "either episodes_per_task or total_episodes"),
        ({"total_episodes": 3, "episodes_per_task": 3}, "either episodes_per_task or total_episodes"),
        ({"total_episodes": 0}, "at least 1 is needed"),
        ({"total_episodes": 3, "task_ids": []}, "no tasks"),
        ({"total_episodes": 3, "task_ids": [99]}, "has no task 99"),
        ({"total_episodes": 3, "mix": (0.0, 0.0)}, "do not sum to 0"),
        ({"total_episodes": 3, "mix": (-1.0, 2.0)}, "at least 0"),
    ],
)
def test_requests_that_make_no_sense_get_one_clear_line(kwargs, message):
    with pytest.raises(ValueError, match=message):
        collect(**kwargs)


def test_reference_scores_set_the_scale():
    scores = ringrl_envs.reference_scores(DARK_ROOM, episodes=65)
    assert set(scores) == {"training", "held_out"}
    for split in scores.values():
        assert split["random"] < 1.5
        assert 16.0 < split["expert"] < 17.0
    assert scores["training"] != scores["held_out"]
    plain = ringrl_envs.reference_scores("CartPole-v1", episodes=20)
    assert plain["training"] == plain["held_out"]
    assert plain["training"]["expert"] is None
    assert 15 < plain["training"]["random"] < 30


class Strict(gymnasium.Env):
    """Asserts that its actions are of its space; episodes of two steps."""

    observation_space = spaces.Box(-1.0, 1.0, (1,))
    metadata: ClassVar = {"render_modes": []}

    def __init__(self, action_space):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.steps += 1
        return np.zeros(1, np.float32), 1.0, False, self.steps == 2, {}


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, -2.0, (1,)),
        spaces.Box(2.0, 10.0, (2,)),
        spaces.Box(np.array([3, -5], np.int16), np.array([4, -1], np.int16), dtype=np.int16),
        spaces.Discrete(3, start=5),
    ],
    ids=str,
)
def test_idle_environments_get_actions_of_their_space_too(space):
    with contextlib.closing(DisabledSyncVectorEnv([lambda: Strict(space) for _ in range(3)])) as environments:
        mix = [("random", 1.0, RandomController(space, 3))]
        episodes = ringrl_envs.collect_episodes(environments, mix, total_episodes=2)
    assert [len(episode.rewards) for episode in episodes] == [2, 2]
    assert all(space.contains(action) for episode in episodes for action in episode.actions)
