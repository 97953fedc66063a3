"""An environment that drives a simulator of another package and gives it D4RL's observations, rewards and ends."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Composed(gymnasium.Env):
    """What D4RL's environments have in common: flat float32 observations without bounds, actions in [-1, 1]."""

    def __init__(self, simulator: Any, observation_size: int) -> None:
        self.simulator = simulator
        self.render_mode = simulator.render_mode
        self.metadata = {"render_modes": ["human", "rgb_array", "depth_array"], **simulator.metadata}
        self.observation_space = spaces.Box(-np.inf, np.inf, (observation_size,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, simulator.action_space.shape, np.float32)

    def reset_simulator(self, seed: int | None) -> Any:
        """Seed this environment and its simulator; the simulator's observation."""
        super().reset(seed=seed)
        observation, _ = self.simulator.reset(seed=seed)
        return observation

    def render(self) -> Any:
        """The simulator's picture."""
        return self.simulator.render()

    def close(self) -> None:
        """Free the simulator."""
        self.simulator.close()
