"""Small Minari sets: sampled, written, opened and rejected."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces.utils import flatten

from ringrl.data import CollectedEpisode, EpisodeStore, open_dataset, write_minari_dataset
from ringrl.data.config import DataConfig
from ringrl.errors import RingRLError

NAME = "ringrl/test-v0"
VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS = spaces.Box(-1, 1, (2,), np.float32)


def stack_samples(space, samples):
    """Stack samples of a space into one value, whose arrays have an additional leading axis."""
    if isinstance(space, spaces.Dict):
        return {key: stack_samples(part, [sample[key] for sample in samples]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stack_samples(part, [sample[i] for sample in samples]) for i, part in enumerate(space.spaces))
    return np.stack([np.asarray(sample) for sample in samples])


def sample_episodes(observation_space=VECTOR, action_space=ACTIONS, count=5):
    """Episodes of 1, 2, 3 ... steps, and the flat observations that gymnasium makes of them."""
    observation_space.seed(0)
    action_space.seed(0)
    episodes, flat = [], []
    for index in range(count):
        samples = [observation_space.sample() for _ in range(index + 2)]
        actions = np.stack([action_space.sample() for _ in range(index + 1)])
        flat.append(np.stack([flatten(observation_space, one) for one in samples[:-1]]).astype(np.float32))
        episodes.append(
            CollectedEpisode(
                observations=stack_samples(observation_space, samples),
                actions=actions,
                rewards=np.arange(index + 1.0) - 0.5,
                terminated=index % 2 == 0,
                task_id=index // 2 + 40,
                policy=("random", "expert")[index % 2],
                seed=100 + index,
            )
        )
    return episodes, flat


def write_set(tmp_path, episodes=None, **changes):
    """Write the Minari set NAME of these episodes (default: five sampled ones), and return its folder."""
    options = {"cache_root": tmp_path, "observation_space": VECTOR, "action_space": ACTIONS} | changes
    return write_minari_dataset(NAME, episodes or sample_episodes()[0], **options)


def open_set(tmp_path, **changes) -> EpisodeStore:
    """The set NAME as a store, with these fields of DataConfig."""
    return open_dataset(DataConfig(name=NAME, **changes), tmp_path)


def check_refused(tmp_path, message, **changes):
    """Opening gives one line, which the pattern `message` matches, and leaves no store."""
    with pytest.raises(RingRLError, match=message) as caught:
        open_dataset(DataConfig(**({"name": NAME} | changes)), tmp_path)
    assert "\n" not in str(caught.value)
    stores = tmp_path / "stores"
    assert not stores.exists() or list(stores.iterdir()) == []
