"""URLB's tasks for the suite's walker, cheetah and quadruped; rewards as in its `custom_dmc_tasks`."""

import math
from typing import Any

from dm_control.suite import cheetah, quadruped, walker
from dm_control.utils.rewards import tolerance

SPIN_SPEED = 5  # angular momentum about y, of the torso and all it carries, above which flipping is worth 1
RUN_SPEED = 10  # m/s, cheetah
JUMP_HEIGHT = 1.0  # m, quadruped's center of mass


def _rising(value: float, target: float, at_zero: float) -> float:
    """1 from the target on, falling linearly to `at_zero` at 0."""
    bounds = (target, math.inf)
    return float(tolerance(value, bounds, margin=target, value_at_margin=at_zero, sigmoid="linear"))


def _spin(physics: Any) -> float:
    return physics.named.data.subtree_angmom["torso"][1]


class WalkerFlip(walker.PlanarWalker):
    """Turn somersaults forward, as much upright as that goes."""

    def __init__(self) -> None:
        super().__init__(move_speed=0)  # so that the parent's reward is the one for standing

    def get_reward(self, physics: Any) -> float:
        return super().get_reward(physics) * (5 * _rising(_spin(physics), SPIN_SPEED, 0) + 1) / 6


class CheetahRun(cheetah.Cheetah):
    """Run, forward (1) or backward (-1)."""

    def __init__(self, direction: int) -> None:
        super().__init__()
        self._direction = direction

    def get_reward(self, physics: Any) -> float:
        return _rising(self._direction * physics.speed(), RUN_SPEED, 0)


class CheetahFlip(cheetah.Cheetah):
    """Turn somersaults, forward (1) or backward (-1)."""

    def __init__(self, direction: int) -> None:
        super().__init__()
        self._direction = direction

    def get_reward(self, physics: Any) -> float:
        return _rising(self._direction * _spin(physics), SPIN_SPEED, 0)


class QuadrupedStand(quadruped.Move):
    """Keep the torso level."""

    def __init__(self) -> None:
        super().__init__(desired_speed=0)

    def get_reward(self, physics: Any) -> float:
        upright = physics.torso_upright()
        return float(tolerance(upright, bounds=(1, math.inf), margin=2, value_at_margin=0, sigmoid="linear"))


class QuadrupedJump(QuadrupedStand):
    """Raise the center of mass, with the torso level."""

    def get_reward(self, physics: Any) -> float:
        height = physics.named.data.sensordata["center_of_mass"][2]
        return super().get_reward(physics) * _rising(height, JUMP_HEIGHT, 0.5)
