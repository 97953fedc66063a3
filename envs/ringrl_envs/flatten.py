"""One flat float32 vector from any observation, goal dictionaries included, in one documented order.

The order is that of `gymnasium.spaces.utils.flatten`, depth first, with the keys of every dictionary sorted by name
(which is how gymnasium's Dict orders a plain dict, and how Minari hands its spaces back). A maze's goal dictionary
is thus achieved_goal, desired_goal, observation. Discrete parts become one-hot vectors. `ringrl.data` reads data sets
in the same order.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.spaces import utils

Collector = Callable[[Any, list[Any]], None]  # (observation, the list to append its parts to)


def sorted_space(space: spaces.Space) -> spaces.Space:
    """The same space with the keys of all its dictionaries sorted."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: sorted_space(space.spaces[key]) for key in sorted(space.spaces)})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([sorted_space(part) for part in space.spaces])
    return space


def flatten_keys(space: spaces.Space) -> list[str]:
    """The order: one dotted name per leaf, such as ["achieved_goal", "desired_goal", "observation"]."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return [""]
    return [f"{key}.{name}" if name else f"{key}" for key, part in _parts(space) for name in flatten_keys(part)]


def flatten_observation(space: spaces.Space, observation: Any) -> np.ndarray:
    """One observation of `space` as a vector (O,) float32."""
    return Flattener(space)(observation)


class Flattener:
    """`flatten_observation` with the order worked out once, for an environment's every step."""

    def __init__(self, space: spaces.Space) -> None:
        self.size = int(flat_space(space).shape[0])
        self._collect = _collector(space)

    def __call__(self, observation: Any) -> np.ndarray:
        """A new vector (O,) float32; ValueError when the observation has another size than its space."""
        parts: list[Any] = []
        self._collect(observation, parts)
        with np.errstate(over="ignore"):  # a number beyond float32 is infinite
            return np.concatenate(parts, out=np.empty(self.size, np.float32), casting="unsafe")


def _collector(space: spaces.Space) -> Collector:
    """What appends the parts of an observation of `space`, each a vector, to a list in the order above."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        collectors = [(key, _collector(part)) for key, part in _parts(space)]

        def collect(observation: Any, parts: list[Any]) -> None:
            for key, collect_part in collectors:
                collect_part(observation[key], parts)

        return collect
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return lambda value, parts: parts.append(value)
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return lambda value, parts: parts.append(np.ravel(value))
    return lambda value, parts: parts.append(utils.flatten(space, value))


def _parts(space: spaces.Dict | spaces.Tuple) -> list[tuple[Any, spaces.Space]]:
    if isinstance(space, spaces.Tuple):
        return list(enumerate(space.spaces))
    return [(key, space.spaces[key]) for key in sorted(space.spaces)]


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
        self._flattener = Flattener(env.observation_space)

    def observation(self, observation: Any) -> np.ndarray:
        """See `flatten_observation`."""
        return self._flattener(observation)
