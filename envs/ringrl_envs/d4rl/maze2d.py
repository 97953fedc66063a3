"""D4RL's maze2d: a point mass that is to stay at a goal, in D4RL's coordinates.

Observation (6,): x, y, velocity in x and in y, goal (2). The first four are D4RL's; D4RL's own agents do not see the
goal, which is the same in every episode. Reward after each step: sparse, 1 within 0.5 m of the goal, else 0; dense,
exp(-distance). No end but the time limit.

x grows with the row of the maze and y with the column. The point's zero lies 0.2 m off the middle of cell (0, 0), so
that D4RL's cell (r, c), position (r, c) in its observations, is 0.2 m off its middle too. gymnasium-robotics' point
mass is the same one; its mazes are centered, turned and without that shift.
"""

import os
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np

from ringrl_envs.d4rl.composed import Composed
from ringrl_envs.d4rl.layouts import add_box, maze_walls
from ringrl_envs.d4rl.model_file import model_file, only
from ringrl_envs.robotics import robotics_module

SHIFT = 0.2
ARRIVAL = 0.5
GOALS = {
    "open": (2, 3),
    "umaze": (1, 1),
    "medium": (6, 6),
    "large": (7, 9),
    "eval-umaze": (1, 3),
    "eval-medium": (1, 6),
    "eval-large": (1, 9),
}


def point_model(maze: str) -> ElementTree.Element:
    """gymnasium-robotics' point mass among the maze's walls."""
    assets = os.path.join(os.path.dirname(str(robotics_module("envs").__file__)), "assets")
    model = ElementTree.parse(os.path.join(assets, "point", "point.xml")).getroot()
    world = only(model, "worldbody")
    for row, column in np.argwhere(maze_walls(maze)):
        middle, half = np.array([row - SHIFT, column - SHIFT, 0.0]), np.array([0.5, 0.5, 0.2])
        add_box(world, f"wall_{row}_{column}", middle, half, conaffinity="1", rgba="0.7 0.5 0.3 1")
    return model


class D4RLMaze2d(Composed):
    """See the module."""

    def __init__(self, maze: str = "large", reward: str = "sparse", render_mode: str | None = None) -> None:
        if reward not in ("sparse", "dense"):
            raise ValueError(f"reward={reward!r} is neither sparse nor dense.")
        self.free_cells = np.argwhere(~maze_walls(maze))
        self.reward, self.fixed_goal = reward, np.array(GOALS[maze], np.float64)
        with model_file(point_model(maze)) as path:
            simulator = robotics_module("envs.maze.point").PointEnv(xml_file=path, render_mode=render_mode)
        super().__init__(simulator, 6)
        self.goal = self.fixed_goal

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start near a random free cell, nearly at rest; `options={"goal": (x, y)}` asks for another goal (meters)."""
        self.reset_simulator(seed)
        self.goal = np.asarray((options or {}).get("goal", self.fixed_goal), np.float64)
        cell = self.free_cells[self.np_random.integers(len(self.free_cells))]
        position = cell + self.np_random.uniform(-0.1, 0.1, 2)
        self.simulator.set_state(position, 0.1 * self.np_random.standard_normal(2))
        return self._observe(self.simulator._get_obs()[0]), {}

    def step(self, action: Any):
        """One step of 0.01 s."""
        state, *_ = self.simulator.step(np.asarray(action))
        distance = float(np.linalg.norm(state[:2] - self.goal))
        arrived = distance <= ARRIVAL
        reward = float(arrived) if self.reward == "sparse" else float(np.exp(-distance))
        return self._observe(state), reward, False, False, {"success": arrived}

    def _observe(self, state: np.ndarray) -> np.ndarray:
        return np.concatenate([state, self.goal]).astype(np.float32)
