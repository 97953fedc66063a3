"""Learning on a point on a line: episodes passed on, learning progress, and rejected arguments."""

import functools
import pathlib
from typing import Any

import gymnasium
import numpy as np
import pytest
from ringrl_envs.sync_vector import DisabledSyncVectorEnv
from ringrl_envs.tasks import TaskSplit

from ringrl.errors import RingRLError
from ringrl.online import (
    OnlineEpisode,
    Replay,
    RewardKind,
    SacConfig,
    Transitions,
    extract_actor,
    learn_online,
    load_actor,
)
from ringrl.online.spaces import read_spaces

pytestmark = pytest.mark.simulators

LOW, HIGH, COUNT = -1.0, 3.0, 4


class Line(gymnasium.Env):
    """A point at x, pushed by a - 1; stay near 0. An episode ends beyond 1.5, and is cut after 20 steps."""

    def __init__(self, action_space: gymnasium.Space | None = None, reward: float = 1.0) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = action_space or gymnasium.spaces.Box(LOW, HIGH, (1,), np.float32)
        self.best = reward

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.x, self.time, self.options = self.np_random.uniform(-1.0, 1.0), 0, options
        return self.observation(), {}

    def step(self, action: np.ndarray):
        assert self.action_space.contains(action), action
        self.x, self.time = self.x + 0.2 * (float(action[0]) - 1.0), self.time + 1
        return self.observation(), self.best - abs(self.x), abs(self.x) > 1.5, self.time == 20, {}

    def observation(self) -> np.ndarray:
        return np.array([self.x, self.time / 20.0], np.float32)

    def physics_state(self) -> np.ndarray:
        return np.array([self.x, self.time, 7.0])


class TaskLine(Line):
    """The same with five tasks, of which three are for training."""

    task_split = TaskSplit(3, 2)


class Seen(Replay):
    """A replay buffer that also stores all its input."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.given: list[Transitions] = []
        ALL_SEEN.append(self)

    def add(self, steps: Transitions) -> None:
        self.given.append(steps)
        super().add(steps)


ALL_SEEN: list[Seen] = []


def vector(make: Any = Line) -> DisabledSyncVectorEnv:
    return DisabledSyncVectorEnv([make] * COUNT)


def learn(config: SacConfig, steps: int = 1600, seed: int = 0, make: Any = Line, **keywords: Any):
    """Episodes, the state, and progress as it was told."""
    episodes: list[OnlineEpisode] = []
    progress: list[tuple[int, int]] = []
    state = learn_online(
        vector(make),
        config,
        steps=steps,
        seed=seed,
        on_episode=episodes.append,
        progress=lambda done, total: progress.append((done, total)),
        **keywords,
    )
    return episodes, state, progress


@functools.cache
def learned(config: SacConfig, folder: pathlib.Path):
    """One run that several tests look at, with what its replay was given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ringrl.online.learn.Replay", Seen)
        episodes, state, progress = learn(config, snapshots=folder, snapshot_every=400)
    return episodes, state, progress, ALL_SEEN[-1].given


@pytest.fixture
def run(config: SacConfig, tmp_path_factory: pytest.TempPathFactory):
    return learned(config, tmp_path_factory.getbasetemp() / "snapshots")


def test_the_return_rises_far_above_random(run) -> None:
    episodes, state, _, _ = run
    random = [episode.rewards.sum() for episode in episodes if episode.policy == "random"]
    late = [episode.rewards.sum() for episode in episodes[-12:]]
    assert np.mean(late) > 15.0, (np.mean(random), late)  # of at most about 19
    assert np.mean(random) < 11.0
    assert int(state.updates) == (1600 - 200) // 2


def test_episodes_are_whole_and_replay_from_their_seeds(run) -> None:
    episodes, _, progress, _ = run
    assert sum(len(episode.rewards) for episode in episodes) > 1600 - 20 * COUNT
    assert {episode.terminated for episode in episodes} == {True, False}
    assert len({episode.seed for episode in episodes}) == len(episodes)
    for episode in episodes:
        steps = len(episode.rewards)
        assert [episode.observations.dtype, episode.actions.dtype, episode.rewards.dtype] == [np.float32] * 3
        assert (episode.observations.shape, episode.actions.shape) == ((steps + 1, 2), (steps, 1))
        assert episode.terminated or (episode.truncated and steps == 20)
        env = Line()
        observation, _ = env.reset(seed=episode.seed)
        assert episode.physics is not None
        for step in range(steps):
            np.testing.assert_array_equal(observation, episode.observations[step])
            np.testing.assert_array_equal(env.physics_state(), episode.physics[step])
            observation, reward, terminated, _, _ = env.step(episode.actions[step])
            assert episode.rewards[step] == np.float32(reward)
            assert terminated == (episode.terminated and step == steps - 1)
        np.testing.assert_array_equal(observation, episode.observations[-1])
        np.testing.assert_array_equal(env.physics_state(), episode.physics[-1])
    actions = np.concatenate([episode.actions for episode in episodes])
    assert LOW <= actions.min() < -0.9
    assert 2.9 < actions.max() <= HIGH
    assert progress == [(done, 1600) for done in range(COUNT, 1601, COUNT)]


def test_labels_say_which_policy_began_an_episode(run) -> None:
    labels = [episode.policy for episode in run[0]]
    first = labels.index(next(label for label in labels if label != "random"))
    assert 8 < first < 20  # 200 steps of at most 20
    steps = [int(label.removeprefix("sac(step=").removesuffix(")")) for label in labels[first:]]
    assert 100 < steps[0] < 200  # begun at random, ended by the actor
    assert max(steps) < 1600
    assert len(set(steps)) > 20


def test_replay_is_given_the_end_of_an_episode_and_not_the_next_beginning(run) -> None:
    """A truncated step counts as one that goes on: only termination stops the bootstrap."""
    episodes, _, _, given = run
    after = np.concatenate([steps.next_observations for steps in given])
    terminated = np.concatenate([steps.terminated for steps in given])
    rewards = np.concatenate([steps.rewards for steps in given])
    np.testing.assert_array_equal(terminated, np.abs(after[:, 0]) > 1.5)
    np.testing.assert_allclose(rewards, 1.0 - np.abs(after[:, 0]), atol=1e-6)
    ends = {tuple(episode.observations[-1].tolist()) for episode in episodes if not episode.terminated}
    cut = after[(after[:, 1] == 1.0) & (terminated == 0)]
    assert {tuple(row.tolist()) for row in cut} == ends
    assert np.abs(np.concatenate([steps.actions for steps in given])).max() <= 1.0


def test_snapshots_are_the_actors_on_the_way(run, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "snapshots"
    assert sorted(file.name for file in folder.iterdir()) == [
        f"actor_{step:09d}.npz" for step in (400, 800, 1200, 1600)
    ]
    last, final = load_actor(folder / "actor_000001600.npz"), extract_actor(run[1], read_spaces(vector()), "final")
    assert (last.label, last.spaces.environment) == ("sac(step=1600)", "Line")
    for one, other in zip(last.kernels + last.biases, final.kernels + final.biases, strict=True):
        np.testing.assert_array_equal(one, other)
    earlier = load_actor(folder / "actor_000000400.npz")
    assert not np.array_equal(earlier.kernels[0], last.kernels[0])


def test_the_same_seed_gives_the_same_episodes(run, config: SacConfig) -> None:
    again, _, _ = learn(config, steps=600)
    assert len(again) > 28
    assert any(episode.policy.startswith("sac(step=4") for episode in again)
    for one, other in zip(run[0], again, strict=False):
        assert (one.seed, one.policy) == (other.seed, other.policy)
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
    other, _, _ = learn(config, steps=100, seed=1)
    assert not np.array_equal(other[0].observations, again[0].observations)


def test_tasks_are_dealt_in_turn(config: SacConfig) -> None:
    episodes, _, _ = learn(config, steps=160, make=TaskLine)
    assert {episode.task_id for episode in episodes} == {0, 1, 2}
    episodes, _, _ = learn(config, steps=160, make=TaskLine, task_ids=[4])
    assert {episode.task_id for episode in episodes} == {4}
    assert {episode.task_id for episode in learn(config, steps=80)[0]} == {0}


@pytest.mark.parametrize(
    ("make", "keywords", "words"),
    [
        (functools.partial(Line, gymnasium.spaces.Discrete(3)), {}, r"Line: actions are Discrete\(3\); .* a Box"),
        (functools.partial(Line, gymnasium.spaces.Box(-np.inf, 1.0, (1,))), {}, "no finite bounds"),
        (functools.partial(Line, gymnasium.spaces.Box(-1.0, 1.0, (2, 2))), {}, "a Box of one dimension"),
        (functools.partial(Line, gymnasium.spaces.Box(0, 9, (1,), np.int64)), {}, "a Box of one dimension"),
        (functools.partial(Line, reward=np.nan), {}, "Line: an observation or reward is not finite"),
        (Line, {"steps": 0}, "steps=0 must be at least 1"),
        (Line, {"snapshots": "x"}, "snapshot_every=0 must be at least 1"),
        (Line, {"task_ids": []}, "task_ids is empty"),
    ],
)
def test_what_cannot_be_learned_is_refused(make, keywords, words, config: SacConfig) -> None:
    with pytest.raises(RingRLError, match=words):
        learn(config, **{"steps": 40, "make": make, **keywords})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"reward": "curiosity"}, "reward=curiosity is unknown: choose environment, rnd"),
        ({"width": 0}, "width=0 must be at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be positive"),
        ({"discount": 1.0}, r"discount=1.0 is not in \[0, 1\)"),
        ({"target_rate": 0.0}, "target_rate=0.0 is not in"),
        ({"random_steps": 0}, "random_steps=0 must be at least 1"),
        ({"updates_per_step": -1.0}, "updates_per_step=-1.0 must be at least 0"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RingRLError, match=words):
        SacConfig(**fields)


def test_curiosity_covers_more_of_a_plane_than_chance() -> None:
    """Cells of a box that the learner visits, against as many episodes of random actions."""

    class Plane(Line):
        def __init__(self) -> None:
            super().__init__(gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32))

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
            super().reset(seed=seed)
            self.place, self.time = np.zeros(2), 0
            return self.place.astype(np.float32), {}

        def step(self, action: np.ndarray):
            self.place, self.time = np.clip(self.place + 0.1 * action, -2.0, 2.0), self.time + 1
            return self.place.astype(np.float32), 0.0, False, self.time == 50, {}

    def cells(random_steps: int) -> tuple[int, list[OnlineEpisode]]:
        config = SacConfig(
            reward=RewardKind.rnd, width=64, batch_size=64, random_steps=random_steps, rnd_width=64, rnd_features=16
        )
        episodes, _, _ = learn(config, steps=12_000, make=Plane)
        places = np.concatenate([episode.observations for episode in episodes])
        return len(np.unique((places * 5).round().astype(int), axis=0)), episodes

    (random, _), (curious, episodes) = cells(random_steps=12_000), cells(random_steps=500)
    assert curious > 1.5 * random, (curious, random)  # of 441
    assert episodes[-1].policy.startswith("rnd(step=")
    assert all((episode.rewards == 0.0).all() for episode in episodes), "the environment's rewards, not the bonus"


def test_pendulum_swings_up() -> None:
    import ringrl_envs

    episodes: list[OnlineEpisode] = []
    environments = ringrl_envs.make_vector("Pendulum-v1", 4)
    learn_online(environments, SacConfig(), steps=8_000, seed=0, on_episode=episodes.append)
    environments.close()
    assert np.mean([episode.rewards.sum() for episode in episodes[:4]]) < -800.0
    assert np.mean([episode.rewards.sum() for episode in episodes[-8:]]) > -400.0
