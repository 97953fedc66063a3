"""Flat observations: one documented order, float32, from any space."""

from collections import OrderedDict

import gymnasium
import numpy as np
import pytest
import ringrl_envs
from gymnasium import spaces
from gymnasium.spaces import utils
from ringrl_envs.flatten import Flattener, sorted_space


def box(size):
    return spaces.Box(-np.inf, np.inf, (size,), np.float64)


NESTED = spaces.Dict(
    OrderedDict(
        observation=box(1),
        desired_goal=spaces.Dict(OrderedDict(slide=box(2), kettle=box(1))),
        achieved_goal=spaces.Tuple([spaces.Discrete(3), box(1)]),
    )
)


def test_keys_are_sorted_depth_first_whatever_the_order_they_were_given_in():
    names = ["achieved_goal.0", "achieved_goal.1", "desired_goal.kettle", "desired_goal.slide", "observation"]
    assert ringrl_envs.flatten_keys(NESTED) == names
    observation = {
        "observation": np.array([9.0]),
        "desired_goal": {"slide": np.array([7.0, 8.0]), "kettle": np.array([6.0])},
        "achieved_goal": (1, np.array([5.0])),
    }
    flat = ringrl_envs.flatten_observation(NESTED, observation)
    assert flat.tolist() == [0.0, 1.0, 0.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    assert flat.dtype == np.float32
    assert flat in ringrl_envs.flat_space(NESTED)


def test_order_is_gymnasiums_for_plain_dictionaries():
    space = spaces.Dict({"b": box(2), "a": spaces.Dict({"y": box(1), "x": box(3)})})
    space.seed(0)
    sample = space.sample()
    np.testing.assert_array_equal(
        ringrl_envs.flatten_observation(space, sample), utils.flatten(space, sample).astype(np.float32)
    )


PARTS = spaces.Dict(
    {
        "image": spaces.Box(0, 255, (2, 3), np.uint8),
        "doors": spaces.MultiDiscrete([2, 3], start=[1, 0]),
        "keys": spaces.MultiBinary((2, 2)),
        "pair": spaces.Tuple([spaces.Discrete(3, start=-1), spaces.Box(0, 1, (), np.float32)]),
        "many": spaces.Box(-(2**20), 2**20, (2,), np.int64),
    }
)


@pytest.mark.parametrize("space", [NESTED, PARTS, box(3), spaces.Discrete(4, start=2)])
def test_the_order_worked_out_once_is_gymnasiums_worked_out_each_time(space):
    flattener = Flattener(space)
    space.seed(1)
    for _ in range(5):
        sample = space.sample()
        flat = flattener(sample)
        assert flat.dtype == np.float32
        np.testing.assert_array_equal(flat, np.asarray(utils.flatten(sorted_space(space), sample), np.float32))
    assert flattener(sample) is not flattener(sample)


def test_observations_of_another_size_than_their_space_are_refused():
    with pytest.raises(ValueError, match="shape"):
        Flattener(spaces.Dict({"a": box(2), "b": box(1)}))({"a": np.zeros(3), "b": np.zeros(1)})


def test_spaces_of_varying_size_are_refused():
    with pytest.raises(ValueError, match="no fixed size"):
        ringrl_envs.flat_space(spaces.Dict({"a": spaces.Sequence(box(1))}))


def test_maze_observations_become_one_vector():
    ringrl_envs.register()
    raw = gymnasium.make("PointMaze_UMaze-v3")
    flat = ringrl_envs.make("PointMaze_UMaze-v3")
    observation, _ = raw.reset(seed=3)
    parts = [observation[key] for key in ("achieved_goal", "desired_goal", "observation")]
    flattened, _ = flat.reset(seed=3)
    np.testing.assert_array_equal(flattened, np.concatenate(parts).astype(np.float32))
    assert flat.observation_space == spaces.Box(-np.inf, np.inf, (8,), np.float32)


@pytest.mark.parametrize(("env_id", "size"), [("CartPole-v1", 4), ("FrozenLake-v1", 16), ("Pendulum-v1", 3)])
def test_any_environment_is_made_with_flat_float32_observations(env_id, size):
    vector = ringrl_envs.make_vector(env_id, 2)
    observations, infos = vector.reset(seed=0)
    assert observations.shape == (2, size)
    assert observations.dtype == np.float32
    assert infos["task_id"].tolist() == [0, 0]
    vector.close()


def test_generic_vector_environment_restarts_only_what_the_caller_asks_for():
    vector = ringrl_envs.make_vector("CartPole-v1", 3)
    first, _ = vector.reset(seed=4)
    ended = np.zeros(3, bool)
    for _ in range(60):
        observations, rewards, terminations, truncations, _ = vector.step(np.ones(3, np.int64))
        assert (rewards[ended] == 0).all()
        assert not (terminations | truncations)[ended].any()
        ended |= terminations
    assert ended.all()
    options = {"reset_mask": np.array([False, True, False]), "task_id": np.zeros(3, np.int64)}
    after, _ = vector.reset(seed=[None, 5, None], options=options)
    assert set(options) == {"reset_mask", "task_id"}
    np.testing.assert_array_equal(after[1], first[1])
    np.testing.assert_array_equal(after[[0, 2]], observations[[0, 2]])
    assert vector.step(np.zeros(3, np.int64))[1].tolist() == [0.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="has no task 3"):
        vector.reset(options={"task_id": 3})
    vector.close()


class TwoTasks(gymnasium.Env):
    """A user's own environment with tasks."""

    task_split = ringrl_envs.TaskSplit(1, 1)
    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    @classmethod
    def split_tasks(cls, **_):
        return cls.task_split

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.array([(options or {}).get("task_id", 0)], np.float32), {"task_id": (options or {}).get("task_id", 0)}


def test_a_users_environment_gets_its_tasks():
    gymnasium.register("ringrl_tests/TwoTasks-v0", TwoTasks)
    try:
        assert ringrl_envs.task_ids("ringrl_tests/TwoTasks-v0", "held_out") == [1]
        vector = ringrl_envs.make_vector("ringrl_tests/TwoTasks-v0", 2)
        observations, infos = vector.reset(options={"task_id": np.array([1, 0])})
        assert observations[:, 0].tolist() == [1.0, 0.0]
        assert infos["task_id"].tolist() == [1, 0]
        vector.close()
    finally:
        del gymnasium.registry["ringrl_tests/TwoTasks-v0"]
