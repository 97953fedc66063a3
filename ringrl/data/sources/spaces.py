"""Flattening of Gymnasium spaces to vectors, whole episodes at a time.

The order is depth first, with the keys of every dictionary sorted by name, whatever order they were written in:
achieved_goal, desired_goal, observation for a maze. `ringrl_envs.flatten_observation` has the same order.
"""

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim

from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec


class Contradiction(ValueError):
    """The parts of a data set contradict each other, which indicates damage, unlike other errors."""


def observation_size(space: spaces.Space, name: str) -> int:
    """Size of a flattened observation; raises `RingRLError` naming the set `name` for an unsupported space."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return sum(observation_size(part, name) for part in parts)
    if isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiBinary | spaces.MultiDiscrete):
        return int(flatdim(space))
    raise RingRLError(
        f"{name}: {type(space).__name__} observations are not supported; use Box, Discrete, Dict or Tuple."
    )


def flatten_observations(space: spaces.Space, values: Any) -> np.ndarray:
    """Flatten an episode's observations, stacked by leaf as in Minari, to (T, O) float32; raises as `leaves`."""
    return np.concatenate(leaves(space, values), axis=1)


def leaves(space: spaces.Space, values: Any, name: str = "") -> list[np.ndarray]:
    """The leaves of nested observations in order, each (T, size) float32.

    Raises Contradiction, naming the leaf, if one is missing or its shape differs from its space, and ValueError if one
    is not numeric.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        found = [
            leaf for key, part in _parts(space) for leaf in leaves(part, _part(values, key, name), f"{name}[{key!r}]")
        ]
        if len({len(leaf) for leaf in found}) > 1:
            raise Contradiction(
                f"the parts of observations{name} have different lengths, {[len(leaf) for leaf in found]}"
            )
        return found
    values = np.asarray(values)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"observations{name} hold {values.dtype} values, not numbers")
    shape = tuple(space.shape or ())
    if values.shape[1:] != shape and not (isinstance(space, spaces.Discrete) and values.shape[1:] == (1,)):
        raise Contradiction(
            f"observations{name} have shape {values.shape}, expected (steps, {', '.join(map(str, shape))})"
        )
    if isinstance(space, spaces.Discrete):
        return [_one_hot(values.reshape(-1) - space.start, int(space.n))]
    if isinstance(space, spaces.MultiDiscrete):
        choices = (values - space.start).reshape(len(values), math.prod(shape))
        sizes = np.asarray(space.nvec).ravel()
        return [_one_hot(choices[:, i], int(size)) for i, size in enumerate(sizes)]
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which the store rejects
        return [values.reshape(len(values), math.prod(shape)).astype(np.float32)]


def _parts(space: spaces.Dict | spaces.Tuple) -> list[tuple[Any, spaces.Space]]:
    if isinstance(space, spaces.Tuple):
        return list(enumerate(space.spaces))
    return [(key, space.spaces[key]) for key in sorted(space.spaces)]


def _part(values: Any, key: Any, name: str) -> Any:
    try:
        return values[key]
    except (KeyError, IndexError, TypeError) as error:
        raise Contradiction(f"observations{name} have no part {key!r}") from error


def action_spec(space: spaces.Space, name: str) -> ActionSpec:
    """Kind, size and bounds of an action space; raises `RingRLError` for any but Box and Discrete.

    Discrete actions are numbered from 0 by `renumber_actions`; those of an integer Box are treated as real numbers.
    """
    if isinstance(space, spaces.Discrete):
        return ActionSpec(ActionKind.discrete, int(space.n), start=int(space.start))
    if isinstance(space, spaces.Box):
        low, high = (tuple(map(float, bound.ravel())) for bound in (space.low, space.high))
        return ActionSpec(ActionKind.continuous, len(low), low, high)
    raise RingRLError(f"{name}: {space} actions are not supported; use a Discrete or a Box space.")


def renumber_actions(spec: ActionSpec, values: np.ndarray) -> np.ndarray:
    """Convert recorded actions to those of a store: discrete ones are numbered from 0."""
    if not spec.start:
        return values
    return (values.astype(np.int64) if values.dtype.kind in "biu" else values) - spec.start


def _one_hot(choices: np.ndarray, size: int) -> np.ndarray:
    return (choices[:, None] == np.arange(size)).astype(np.float32)
