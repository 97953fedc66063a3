"""One flat float32 vector from any observation, goal dictionaries included, in one documented order.

The order is that of `gymnasium.spaces.utils.flatten`, depth first, with the keys of every dictionary sorted by name
(which is how gymnasium's Dict orders a plain dict, and how Minari hands its spaces back). A maze's goal dictionary
is thus achieved_goal, desired_goal, observation. Discrete parts become one-hot vectors.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.spaces import utils


def sorted_space(space: spaces.Space) -> spaces.Space:
    """The same space with the keys of all its dictionaries sorted."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: sorted_space(space.spaces[key]) for key in sorted(space.spaces)})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([sorted_space(part) for part in space.spaces])
    return space


def flatten_keys(space: spaces.Space) -> list[str]:
    """The order: one dotted name per leaf, such as ["achieved_goal", "desired_goal", "observation"]."""
    if isinstance(space, spaces.Dict):
        parts = [(key, space.spaces[key]) for key in sorted(space.spaces)]
    elif isinstance(space, spaces.Tuple):
        parts = [(str(index), part) for index, part in enumerate(space.spaces)]
    else:
        return [""]
    return [f"{key}.{name}" if name else key for key, part in parts for name in flatten_keys(part)]


def flatten_observation(space: spaces.Space, observation: Any) -> np.ndarray:
    """One observation of `space` as a vector (O,) float32."""
    return np.asarray(utils.flatten(sorted_space(space), observation), np.float32)


def flat_space(space: spaces.Space) -> spaces.Box:
    """The Box (O,) float32 that holds the flattened observations.

    Raises:
        ValueError: the space holds parts of varying size, such as graphs or sequences.
    """
    if not space.is_np_flattenable:
        raise ValueError(f"observations of {space} have no fixed size: they cannot become one flat vector.")
    flat = utils.flatten_space(sorted_space(space))
    assert isinstance(flat, spaces.Box)
    with np.errstate(over="ignore"):  # float64's largest finite bounds become infinite ones
        return spaces.Box(flat.low.astype(np.float32), flat.high.astype(np.float32), dtype=np.float32)


def is_flat(space: spaces.Space) -> bool:
    """Whether observations already are float32 vectors."""
    return isinstance(space, spaces.Box) and len(space.shape) == 1 and space.dtype == np.float32


class FlattenGoalDict(gymnasium.ObservationWrapper, gymnasium.utils.RecordConstructorArgs):
    """Observations of any space as one flat float32 vector; see the module for the order."""

    def __init__(self, env: gymnasium.Env) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self.observation_space = flat_space(env.observation_space)
        self._sorted = sorted_space(env.observation_space)

    def observation(self, observation: Any) -> np.ndarray:
        """See `flatten_observation`."""
        return np.asarray(utils.flatten(self._sorted, observation), np.float32)
