"""Rewards read from recorded physics are the simulator's own, under the task they were recorded in or any other."""

import pickle
from typing import NamedTuple

import numpy as np
import pytest
import ringrl_envs
from ringrl_envs.dmc.catalogue import TASKS
from simulators import needs_dm_control

pytestmark = pytest.mark.simulators

STEPS = 60
CHEAP = ("cartpole_swingup", "walker_run")
TASKS_TO_TRY = [
    pytest.param(task, marks=() if task in CHEAP else pytest.mark.simulators) for task in ringrl_envs.dmc_tasks()
]
DOMAINS = [pytest.param(domain, marks=() if domain == "walker" else pytest.mark.simulators) for domain in TASKS]


class Recorded(NamedTuple):
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    physics: np.ndarray


def telling_start(task: str) -> np.ndarray | None:
    """A state from which random actions meet rewards of several sizes, where the task's own starts meet none."""
    if task.startswith("cartpole"):
        return np.array([0.0, 0.05, 0.0, 0.3])  # nearly upright
    if task.startswith("point_mass_maze"):
        return np.array([-0.14 if "left" in task else 0.14, 0.14 if "top" in task else -0.14, 0.02, 0.0])
    return None


def record(task: str, start: np.ndarray | None = None, seed: int = 3) -> Recorded:
    """An episode with ExoRL's dummy first row; from `start` as after a reset, or from the task's own."""
    env = ringrl_envs.make(ringrl_envs.dmc_id(task))
    env.action_space.seed(seed)
    observation = env.reset(seed=seed)[0]
    if start is not None:
        observation = env.unwrapped.set_physics_state(start)
    rows = [(observation, np.zeros(env.action_space.shape, np.float32), 0.0, env.unwrapped.physics_state())]
    for _ in range(STEPS):
        action = env.action_space.sample()
        observation, reward, *_ = env.step(action)
        rows.append((observation, action, reward, env.unwrapped.physics_state()))
    return Recorded(*(np.stack(column) for column in zip(*rows, strict=True)))


@needs_dm_control
@pytest.mark.parametrize("task", TASKS_TO_TRY)
def test_relabeled_rewards_and_observations_are_the_simulators_to_the_bit(task):
    recorded = record(task, telling_start(task))
    relabeller = ringrl_envs.Relabeller(ringrl_envs.dmc_id(task))
    rewards = relabeller(recorded.physics, recorded.actions)
    assert np.ptp(recorded.rewards[1:]) > 0
    np.testing.assert_array_equal(rewards, recorded.rewards)
    np.testing.assert_array_equal(relabeller(recorded.physics, recorded.actions), rewards)  # nothing left over
    observations = relabeller.observations(recorded.physics, recorded.actions)
    np.testing.assert_array_equal(observations, recorded.observations)
    assert (relabeller.observation_size, relabeller.physics_size) == (observations.shape[1], recorded.physics.shape[1])


@needs_dm_control
@pytest.mark.parametrize("domain", DOMAINS)
def test_physics_of_one_task_give_the_rewards_that_another_tasks_simulator_gives(domain):
    tasks = ringrl_envs.dmc_tasks(domain)
    start = record(tasks[0]).physics[STEPS // 2]
    first = record(tasks[0], start)
    for other in tasks:
        replayed = record(other, start)
        np.testing.assert_array_equal(replayed.physics, first.physics)
        np.testing.assert_array_equal(replayed.actions, first.actions)
        relabeled = ringrl_envs.Relabeller(ringrl_envs.dmc_id(other))(first.physics, first.actions)
        np.testing.assert_array_equal(relabeled, replayed.rewards)


@needs_dm_control
@pytest.mark.parametrize("task", ["cartpole_swingup", "point_mass_maze_reach_top_left"])
def test_the_control_counts_where_the_task_looks_at_it(task):
    recorded = record(task, telling_start(task))
    relabeller = ringrl_envs.Relabeller(ringrl_envs.dmc_id(task))
    without = relabeller(recorded.physics, np.zeros_like(recorded.actions))
    assert np.abs(without - recorded.rewards).max() > 0.01


@needs_dm_control
def test_a_relabeler_travels_without_its_simulator():
    recorded = record("cartpole_swingup")
    relabeller = ringrl_envs.Relabeller("ringrl/dmc_cartpole_swingup-v0")
    rewards = relabeller(recorded.physics, recorded.actions)
    packed = pickle.dumps(relabeller)
    assert len(packed) < 200
    np.testing.assert_array_equal(pickle.loads(packed)(recorded.physics, recorded.actions), rewards)
    lowest, highest = relabeller.action_bounds()
    np.testing.assert_array_equal([lowest, highest], [[-1.0], [1.0]])


@needs_dm_control
@pytest.mark.parametrize(
    ("physics", "actions", "line"),
    [
        (np.zeros((3, 5)), np.zeros((3, 1)), r"^physics has shape \(3, 5\): rows of 4 numbers are needed\.$"),
        (np.zeros((3, 4)), np.zeros((2, 1)), r"^actions have shape \(2, 1\): \(3, 1\) goes with the physics\.$"),
        (np.full((3, 4), np.nan), np.zeros((3, 1)), r"^physics row 0, number 0, is nan"),
        (np.diag([0, 0, 1e11, 0]), np.zeros((4, 1)), r"^physics row 2, number 2, is 1e\+?11|^physics row 2"),
        (np.zeros((3, 4)), np.array([[0], [np.inf], [0]]), r"^actions row 1 is not finite\.$"),
    ],
)
def test_physics_and_actions_that_do_not_fit_are_refused(physics, actions, line):
    relabeller = ringrl_envs.Relabeller("ringrl/dmc_cartpole_swingup-v0")
    with pytest.raises(ValueError, match=line):
        relabeller(physics, actions)


@pytest.mark.parametrize("env_id", ["walker_stand", "ringrl/dmc_walker_fly-v0", "Hopper-v5", "ringrl/dmc_walker_run"])
def test_only_ids_of_dm_control_tasks_have_a_relabeler(env_id):
    with pytest.raises(ValueError, match="is no dm_control environment of RingRL"):
        ringrl_envs.Relabeller(env_id)


class Random:
    """Uniform actions."""

    def reset(self, mask, rng):
        pass

    def act(self, observations, rng):
        return rng.uniform(-1, 1, (len(observations), 1)).astype(np.float32)


@needs_dm_control
def test_collected_episodes_carry_the_physics_that_give_their_rewards_back():
    env_id = "ringrl/dmc_cartpole_swingup-v0"
    relabeller = ringrl_envs.Relabeller(env_id)
    vector = ringrl_envs.make_vector(env_id, 2, max_episode_steps=20)
    behaviours = [("random", 1.0, Random())]
    episodes = ringrl_envs.collect_episodes(vector, behaviours, total_episodes=3, record_physics=True)
    assert [len(episode.rewards) for episode in episodes] == [20, 20, 20]
    for episode in episodes:
        assert episode.physics is not None
        assert episode.physics.shape == (21, 4)
        assert episode.physics.dtype == np.float64
        actions = np.concatenate([np.zeros((1, 1), np.float32), episode.actions])
        np.testing.assert_array_equal(relabeller(episode.physics, actions)[1:], episode.rewards)
        np.testing.assert_array_equal(relabeller.observations(episode.physics, actions), episode.observations)
    assert ringrl_envs.collect_episodes(vector, behaviours, total_episodes=1)[0].physics is None


def test_an_environment_without_physics_says_so():
    vector = ringrl_envs.make_vector("Pendulum-v1", 2)
    with pytest.raises(ValueError, match=r"^Pendulum-v1 has no physics to record"):
        ringrl_envs.collect_episodes(vector, [("random", 1.0, Random())], total_episodes=1, record_physics=True)
