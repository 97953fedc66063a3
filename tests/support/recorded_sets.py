"""A Minari set of one step with a given environment."""

import gymnasium
import numpy as np

from ringrl.data import CollectedEpisode, open_dataset, write_minari_dataset
from ringrl.data.config import DataConfig

NAME = "mine/recorded-v0"


def write_set(tmp_path, spec=None, **told):
    """Write a set of one step with a given environment; returns its metadata as in a store, and its folder."""
    episode = CollectedEpisode(np.zeros((2, 3), np.float32), np.zeros((1, 1), np.float32), np.zeros(1), False)
    pendulum = gymnasium.make("Pendulum-v1")
    folder = write_minari_dataset(
        NAME,
        [episode],
        cache_root=tmp_path,
        observation_space=pendulum.observation_space,
        action_space=pendulum.action_space,
        env_spec=spec,
        overwrite=True,
        **told,
    )
    return open_dataset(DataConfig(name=NAME), tmp_path).metadata, folder
