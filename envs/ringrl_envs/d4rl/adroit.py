"""D4RL's Adroit hands: gymnasium-robotics' AdroitHand*-v1 with D4RL's rewards and ends.

The observations are the same. The rewards are not: AdroitHandDoor, Hammer and Relocate reward the distance between
palm and object where D4RL takes it off, and AdroitHandPen goes on after the pen has fallen, where D4RL ends.
The scores of D4RL hold for the rewards below.
"""

from typing import Any

import numpy as np

from ringrl_envs.d4rl.composed import Composed
from ringrl_envs.robotics import robotics_module


class _Hand(Composed):
    """A hand whose reward and end `_judge` tells."""

    module = name = ""

    def __init__(self, render_mode: str | None = None) -> None:
        simulator = getattr(robotics_module(f"envs.adroit_hand.{self.module}"), self.name)(render_mode=render_mode)
        super().__init__(simulator, simulator.observation_space.shape[0])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """A new place for the object or the goal."""
        return self.reset_simulator(seed).astype(np.float32), {}

    def step(self, action: Any):
        """One step of 0.01 to 0.02 s."""
        observation, _, _, _, info = self.simulator.step(np.asarray(action))
        reward, terminated = self._judge(observation)
        return observation.astype(np.float32), reward, terminated, False, {"success": bool(info["success"])}

    def _judge(self, observation: np.ndarray) -> tuple[float, bool]:
        raise NotImplementedError


class D4RLPen(_Hand):
    """Turn the pen into the shown orientation; ends when it falls."""

    module, name = "adroit_pen", "AdroitHandPenEnv"

    def _judge(self, observation: np.ndarray) -> tuple[float, bool]:
        # Of the last 21: pen's position 3, velocity 6, orientation 3, wanted orientation 3, differences 3 and 3.
        position, orientation, wanted, offset = (
            observation[i:j] for i, j in ((-21, -18), (-12, -9), (-9, -6), (-6, -3))
        )
        distance, similarity = float(np.linalg.norm(offset)), float(orientation @ wanted)
        near = distance < 0.075
        fallen = bool(position[2] < 0.075)
        bonus = 10.0 * (near and similarity > 0.9) + 50.0 * (near and similarity > 0.95)
        return similarity - distance + bonus - 5.0 * fallen, fallen


class D4RLDoor(_Hand):
    """Undo the latch and swing the door open."""

    module, name = "adroit_door", "AdroitHandDoorEnv"

    def _judge(self, observation: np.ndarray) -> tuple[float, bool]:
        # Of the last 11: door's hinge 1, palm 3, handle 3, palm - handle 3, door open 1.
        angle, offset = float(observation[-11]), observation[-4:-1]
        speed = float(np.square(self.simulator.data.qvel).sum())
        bonus = 2.0 * (angle > 0.2) + 8.0 * (angle > 1.0) + 10.0 * (angle > 1.35)
        return -0.1 * float(np.linalg.norm(offset)) - 0.1 * (angle - 1.57) ** 2 - 1e-5 * speed + bonus, False


class D4RLHammer(_Hand):
    """Pick up the hammer and drive the nail in."""

    module, name = "adroit_hammer", "AdroitHandHammerEnv"

    def _judge(self, observation: np.ndarray) -> tuple[float, bool]:
        # Of the last 13: palm 3, hammer 3, its rotation 3, nail 3, force on the nail 1.
        palm, hammer, nail = observation[-13:-10], observation[-10:-7], observation[-4:-1]
        data = self.simulator.data
        head, goal = (data.site_xpos[i] for i in (self.simulator.tool_site_id, self.simulator.goal_site_id))
        left = float(np.linalg.norm(nail - goal))
        lifted = bool(hammer[2] > 0.04 and head[2] > 0.04)
        reward = -0.1 * float(np.linalg.norm(palm - hammer)) - float(np.linalg.norm(head - nail)) - 10.0 * left
        reward -= 1e-2 * float(np.linalg.norm(data.qvel))
        return reward + 2.0 * lifted + 25.0 * (left < 0.02) + 75.0 * (left < 0.01), False


class D4RLRelocate(_Hand):
    """Carry the ball to the target."""

    module, name = "adroit_relocate", "AdroitHandRelocateEnv"

    def _judge(self, observation: np.ndarray) -> tuple[float, bool]:
        # The last 9: palm - ball 3, palm - target 3, ball - target 3.
        to_ball, to_target, left = (
            float(np.linalg.norm(observation[i:j])) for i, j in ((-9, -6), (-6, -3), (-3, None))
        )
        lifted = bool(self.simulator.data.xpos[self.simulator.obj_body_id][2] > 0.04)
        bonus = 10.0 * (left < 0.1) + 20.0 * (left < 0.05)
        return -0.1 * to_ball + lifted * (1.0 - 0.5 * to_target - 0.5 * left) + bonus, False
