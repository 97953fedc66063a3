"""Conversion of an agent's actions to those of an environment."""

import gymnasium
import numpy as np

from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec


def convert_actions(space: gymnasium.Space, actions: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Convert an agent's actions (B, A) or (B,) to a Box or Discrete space: its shape, dtype and bounds.

    Discrete actions begin at the space's start; for an integer Box they are rounded. Inactive rows get 0.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return (np.where(active, actions.reshape(active.shape), 0) + space.start).astype(space.dtype)
    assert isinstance(space, gymnasium.spaces.Box)
    rows = np.where(active[:, None], actions.reshape(len(active), -1), 0.0).reshape(len(active), *space.shape)
    if np.issubdtype(space.dtype, np.integer):
        rows = np.rint(rows)
    return np.clip(rows, space.low, space.high).astype(space.dtype)


def check_supported(name: str, space: gymnasium.Space) -> tuple[ActionKind, int]:
    """Check that an action space is a Box or Discrete, and return its kind and size; errors begin with `name`."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return ActionKind.discrete, int(space.n)
    if isinstance(space, gymnasium.spaces.Box):
        return ActionKind.continuous, int(np.prod(space.shape))
    raise RingRLError(f"{name} takes actions of {space}: only Box and Discrete are supported.")


def check_action_space(name: str, space: gymnasium.Space, spec: ActionSpec) -> None:
    """Raise RingRLError, beginning with `name`, if a space's actions differ from those a policy was trained on."""
    kind, size = check_supported(name, space)
    if (kind, size) != (spec.kind, spec.size):
        raise RingRLError(
            f"{name} takes {kind} actions of size {size}, but the policy was trained on {spec.kind} actions "
            f"of size {spec.size}: evaluate on the environment that its data came from."
        )


def recorded_space(spec: ActionSpec) -> gymnasium.spaces.Box | gymnasium.spaces.Discrete:
    """The action space of a data set: float32 vectors within its bounds, or its discrete actions."""
    if spec.kind is ActionKind.discrete:
        return gymnasium.spaces.Discrete(spec.size, start=spec.start)
    return gymnasium.spaces.Box(np.asarray(spec.low, np.float32), np.asarray(spec.high, np.float32), dtype=np.float32)
