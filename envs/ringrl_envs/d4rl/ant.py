"""D4RL's Ant: 111 numbers, of which the last 84 are zero.

D4RL's ant files come from gym's Ant-v2 on MuJoCo 2.0, which left the contact forces (numbers 27 to 110) at zero and
out of the reward. gymnasium's Ant-v4 without contact forces has the same 27 numbers, reward and ends.
"""

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.ant_v4 import AntEnv

from ringrl_envs.d4rl.composed import Composed

SIZE = 111


class D4RLAnt(Composed):
    """Forward speed is rewarded; ends when the ant is not healthy."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(AntEnv(use_contact_forces=False, render_mode=render_mode), SIZE)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start near the standing pose."""
        return self._padded(self.reset_simulator(seed)), {}

    def step(self, action: Any):
        """One step of 0.05 s."""
        observation, reward, terminated, truncated, info = self.simulator.step(np.asarray(action))
        return self._padded(observation), float(reward), bool(terminated), truncated, info

    def _padded(self, observation: np.ndarray) -> np.ndarray:
        padded = np.zeros(SIZE, np.float32)
        padded[: len(observation)] = observation
        return padded
