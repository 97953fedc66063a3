"""D4RL's kitchen: gymnasium-robotics' FrankaKitchen-v1 seen as D4RL's 60 numbers.

Observation (60,): robot joint positions (9), object positions (21), goal (30: zero for the robot and for objects that
are not asked for). The velocities of FrankaKitchen-v1 are left out. Reward: how many of the tasks are done for the
first time in this step; the episode ends when all are. Noise on observations is D4RL's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ringrl_envs.d4rl.composed import Composed
from ringrl_envs.robotics import robotics_module

NOISE = 0.1  # share of each joint's noise amplitude


class D4RLKitchen(Composed):
    """See the module."""

    def __init__(self, tasks: Sequence[str], render_mode: str | None = None) -> None:
        kitchen = robotics_module("envs.franka_kitchen.kitchen_env")
        simulator = kitchen.KitchenEnv(
            tasks_to_complete=list(tasks),
            object_noise_ratio=NOISE,
            robot_noise_ratio=NOISE,
            render_mode=render_mode,
        )
        simulator.metadata = simulator.robot_env.metadata
        super().__init__(simulator, 60)
        self.goal = np.zeros(30)
        for task in tasks:
            self.goal[kitchen.OBS_ELEMENT_INDICES[task]] = kitchen.OBS_ELEMENT_GOALS[task]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start with everything closed and off."""
        return self._observe(self.reset_simulator(seed)), {}

    def step(self, action: Any):
        """One step of 0.08 s."""
        observation, reward, terminated, _, info = self.simulator.step(np.asarray(action, np.float64))
        info = {**info, "episode_task_completions": list(info["episode_task_completions"]), "success": terminated}
        return self._observe(observation), float(reward), bool(terminated), False, info

    def _observe(self, observation: dict[str, Any]) -> np.ndarray:
        values = observation["observation"]
        return np.concatenate([values[:9], values[18:39], self.goal]).astype(np.float32)
