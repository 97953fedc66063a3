"""Gymnasium spaces as flat vectors: the same order as `gymnasium.spaces.utils.flatten`, whole episodes at a time."""

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim

from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec


def observation_size(space: spaces.Space, name: str) -> int:
    """Size of a flattened observation; raises `RingRLError` naming the set `name` for a space that has none."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return sum(observation_size(part, name) for part in parts)
    if isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiBinary | spaces.MultiDiscrete):
        return int(flatdim(space))
    raise RingRLError(
        f"{name}: {type(space).__name__} observations are not supported; use Box, Discrete, Dict or Tuple."
    )


def flatten_observations(space: spaces.Space, values: Any) -> np.ndarray:
    """Observations of one episode, stacked by leaf as Minari gives them, as (T, O) float32."""
    if isinstance(space, spaces.Dict):
        return np.concatenate([flatten_observations(part, values[key]) for key, part in space.spaces.items()], axis=1)
    if isinstance(space, spaces.Tuple):
        return np.concatenate([flatten_observations(*pair) for pair in zip(space.spaces, values, strict=True)], axis=1)
    values = np.asarray(values)
    if isinstance(space, spaces.Discrete):
        return _one_hot(values.reshape(-1) - space.start, int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        choices = (values - space.start).reshape(len(values), -1)
        sizes = np.asarray(space.nvec).ravel()
        return np.concatenate([_one_hot(choices[:, i], int(size)) for i, size in enumerate(sizes)], axis=1)
    return values.reshape(len(values), -1).astype(np.float32)


def action_spec(space: spaces.Space, name: str) -> ActionSpec:
    """Kind, size and bounds of an action space; raises `RingRLError` for any but Box and Discrete from 0."""
    if isinstance(space, spaces.Discrete):
        if space.start:
            raise RingRLError(f"{name}: discrete actions start at {space.start}; renumber them from 0.")
        return ActionSpec(ActionKind.discrete, int(space.n))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = (tuple(map(float, bound.ravel())) for bound in (space.low, space.high))
        return ActionSpec(ActionKind.continuous, len(low), low, high)
    raise RingRLError(f"{name}: {space} actions are not supported; use a Discrete or a floating-point Box space.")


def _one_hot(choices: np.ndarray, size: int) -> np.ndarray:
    return (choices[:, None] == np.arange(size)).astype(np.float32)
