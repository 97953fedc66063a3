"""Observations and rewards of a Minari set equal those of its environment."""

import gymnasium
import minari
import numpy as np
import pytest
import ringrl_envs
from gymnasium import spaces
from minari_files import stack_samples
from ringrl_envs.flatten import Flattener

from ringrl.cli.environments import find_environment
from ringrl.config import EnvConfig
from ringrl.data import open_dataset
from ringrl.data.config import DataConfig
from ringrl.data.sources.spaces import flatten_observations, observation_size

pytestmark = pytest.mark.usefixtures("minari_root")

NESTED = spaces.Dict(
    {
        "z": spaces.Tuple([spaces.Discrete(3, start=1), spaces.Box(-9, 9, (2, 2), np.float64)]),
        "a": spaces.Dict({"y": spaces.MultiDiscrete([2, 3]), "b c": spaces.MultiBinary(3), "X": spaces.Box(0, 1, ())}),
        "m": spaces.Box(0, 255, (2,), np.uint8),
    }
)


def unsorted(space):
    """The same space, its keys in the opposite order."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict([(key, unsorted(space.spaces[key])) for key in sorted(space.spaces, reverse=True)])
    return space


@pytest.mark.parametrize("change", [lambda space: space, unsorted], ids=["sorted", "unsorted"])
def test_data_and_environments_have_one_order(change):
    space = change(NESTED)
    space.seed(0)
    samples = [space.sample() for _ in range(4)]
    flat = np.stack([Flattener(space)(sample) for sample in samples])
    np.testing.assert_array_equal(flatten_observations(space, stack_samples(space, samples)), flat)
    assert observation_size(space, "") == flat.shape[1]
    np.testing.assert_array_equal(flat, [ringrl_envs.flatten_observation(NESTED, sample) for sample in samples])


SIMULATORS = {
    "PointMaze_UMaze-v3": {"continuing_task": True, "reset_target": False},
    "Hopper-v5": {},
    "AntMaze_UMaze-v4": {"maze_map": [[1, 1, 1, 1], [1, "g", "r", 1], [1, 1, 1, 1]], "max_episode_steps": 9},
    "AdroitHandPen-v1": {},
    "FrankaKitchen-v1": {
        "tasks_to_complete": ["microwave", "kettle"],
        "remove_task_when_completed": False,
        "max_episode_steps": 450,
    },
}


@pytest.mark.filterwarnings("ignore:.*out of date.*:DeprecationWarning", "ignore:.*is set to None.*:UserWarning")
@pytest.mark.filterwarnings("ignore:Implicitly cleaning up.*:ResourceWarning")  # Minari's collector's
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize(
    "env_id",
    [
        "PointMaze_UMaze-v3",
        "Hopper-v5",
        *(pytest.param(env_id, marks=pytest.mark.simulators) for env_id in list(SIMULATORS)[2:]),
    ],
)
def test_what_a_collector_records_comes_back_as_the_environment_shows_it(tmp_path, env_id, data_format):
    ringrl_envs.register()
    kwargs, name = SIMULATORS[env_id], "ringrl/collected-v0"
    collector = minari.DataCollector(
        gymnasium.make(env_id, disable_env_checker=True, **kwargs),
        data_format=data_format,
        record_infos="Point" in env_id,
    )
    collector.action_space.seed(0)
    recorded, actions, rewards, lengths = [], [], [], []
    flatten = Flattener(collector.observation_space)
    for seed, steps in ((3, 12), (4, 7)):
        observation, _ = collector.reset(seed=seed)
        for step in range(steps):
            recorded.append(flatten(observation))  # Kitchen hands out arrays that it goes on to change
            actions.append(collector.action_space.sample())
            observation, reward, terminated, truncated, _ = collector.step(actions[-1])
            rewards.append(reward)
            if terminated or truncated or step == steps - 1:
                lengths.append(step + 1)
                break
    collector.create_dataset(name, ref_min_score=0.0, ref_max_score=1.0)
    collector.close()
    del collector

    store = open_dataset(DataConfig(name=name), tmp_path)
    assert store.lengths.tolist() == lengths
    np.testing.assert_array_equal(store.observations, recorded)
    np.testing.assert_array_equal(store.actions, np.asarray(actions, np.float32))
    np.testing.assert_array_equal(store.rewards, np.asarray(rewards, np.float32))

    # The environment that the set names shows the very same, when it is given the same.
    chosen = find_environment(EnvConfig(), store.metadata)
    limit = kwargs.get("max_episode_steps", gymnasium.spec(env_id).max_episode_steps)
    env = ringrl_envs.make(chosen.spec)
    assert env.spec.max_episode_steps == limit
    begin = 0
    for seed, steps in zip((3, 4), lengths, strict=True):
        observation, _ = env.reset(seed=seed)
        for step in range(begin, begin + steps):
            np.testing.assert_array_equal(observation, store.observations[step])
            observation, reward, *_ = env.step(actions[step])
            assert np.float32(reward) == store.rewards[step]
        begin += steps
    env.close()
