"""Properties of a vector environment's spaces that a learner needs."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from ringrl.errors import RingRLError

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv


@dataclasses.dataclass(frozen=True, eq=False)
class Spaces:
    """Observation size O, and the bounds (A,) float32 of actions; learners act in [-1, 1]."""

    environment: str
    observation_size: int
    low: np.ndarray  # (A,) float32
    high: np.ndarray  # (A,) float32

    @property
    def action_size(self) -> int:
        """Action size A."""
        return len(self.low)

    def to_environment(self, unit_actions: np.ndarray) -> np.ndarray:
        """Scale actions (..., A) in [-1, 1] to float32 actions within the environment's bounds."""
        scaled = self.low + 0.5 * (np.asarray(unit_actions, np.float32) + 1.0) * (self.high - self.low)
        return np.clip(scaled, self.low, self.high).astype(np.float32)


def read_spaces(vector_env: "VectorEnv") -> Spaces:
    """The spaces of one sub-environment.

    Raises RingRLError unless observations are flat numbers (O,) and actions a Box (A,) with finite bounds.
    """
    environment = environment_name(vector_env)
    observation, action = vector_env.single_observation_space, vector_env.single_action_space
    shape = getattr(observation, "shape", None)
    if not hasattr(observation, "low") or shape is None or len(shape) != 1:
        raise RingRLError(f"{environment}: observations are {observation}; online learning needs a flat Box.")
    low, high = getattr(action, "low", None), getattr(action, "high", None)
    if low is None or high is None or low.ndim != 1 or not np.issubdtype(low.dtype, np.floating):
        raise RingRLError(
            f"{environment}: actions are {action}; a learner needs a Box of one dimension: collect with "
            "behavior=random or graded."
        )
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise RingRLError(f"{environment}: actions {action} have no finite bounds; online learning needs them.")
    return Spaces(environment, shape[0], low.astype(np.float32), high.astype(np.float32))


def environment_name(vector_env: "VectorEnv") -> str:
    """The gymnasium id, or the class name if there is none."""
    one = next(iter(getattr(vector_env, "envs", ())), vector_env)
    return one.spec.id if one.spec is not None else type(one.unwrapped).__name__
