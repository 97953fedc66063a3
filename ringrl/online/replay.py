"""The replay buffer: the last steps, in a ring buffer of preallocated arrays."""

from typing import NamedTuple

import numpy as np

from ringrl.types import Array


class Transitions(NamedTuple):
    """Steps of an environment, any leading shape, float32; actions scaled to [-1, 1]."""

    observations: Array  # (..., O)
    actions: Array  # (..., A)
    rewards: Array  # (...)
    terminated: Array  # (...): 1 at a terminal step; 0 if an episode was truncated or continues
    next_observations: Array  # (..., O)


class Replay:
    """The last `capacity` transitions. Memory is allocated as it fills."""

    def __init__(self, capacity: int, observation_size: int, action_size: int) -> None:
        shapes = ((observation_size,), (action_size,), (), (), (observation_size,))
        self._columns = Transitions(*(np.zeros((capacity, *shape), np.float32) for shape in shapes))
        self._capacity = capacity
        self._added = 0

    def __len__(self) -> int:
        return min(self._added, self._capacity)

    def add(self, steps: Transitions) -> None:
        """Add B steps, replacing the oldest when full."""
        count = len(steps.rewards)
        if count > self._capacity:
            raise ValueError(f"{count} steps at once are more than the replay's {self._capacity}.")
        places = (self._added + np.arange(count)) % self._capacity
        for column, values in zip(self._columns, steps, strict=True):
            column[places] = values
        self._added += count

    def sample(self, rng: np.random.Generator, *shape: int) -> Transitions:
        """Sample transitions uniformly with replacement, as copies with leading `shape`."""
        chosen = rng.integers(len(self), size=shape)
        return Transitions(*(column[chosen] for column in self._columns))
