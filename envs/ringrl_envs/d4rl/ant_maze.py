"""D4RL's AntMaze: an ant that walks to a goal, in D4RL's coordinates and with D4RL's ant.

Observation (31,): positions (15: x, y, z, orientation, 8 joints), velocities (14), goal (2). The first 29 are D4RL's;
D4RL's own agents do not see the goal, here they do, as in Minari's and gymnasium-robotics' AntMaze. Reward 1 and the
end of the episode on arrival within 0.5 m of the goal, else 0. The start is the origin; the goal is drawn in the goal
cell for every episode, as D4RL's v2 tasks do (up to 1.5 m above the cell's middle in x and in y).

gymnasium-robotics' AntMaze has another ant: five times the torque (150 to 30) and half the time step (0.01 to
0.02 s), so that actions of D4RL's files do something else there. This one is gymnasium's ant with D4RL's numbers.
"""

import os
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
from gymnasium.envs.mujoco import mujoco_env
from gymnasium.envs.mujoco.ant_v5 import AntEnv

from ringrl_envs.d4rl.composed import Composed
from ringrl_envs.d4rl.layouts import add_box, maze_walls
from ringrl_envs.d4rl.model_file import model_file, only

SCALE = 4.0  # meters per cell
WALL_HEIGHT = 2.0
ARRIVAL = 0.5
CELLS = {  # start and goal, row and column
    "umaze": ((1, 1), (3, 1)),
    "medium": ((1, 1), (6, 6)),
    "large": ((1, 1), (7, 9)),
    "eval-umaze": ((1, 3), (3, 3)),
    "eval-medium": ((1, 1), (1, 6)),
    "eval-large": ((1, 1), (1, 9)),
}


def cell_xy(maze: str, cell: tuple[int, int]) -> np.ndarray:
    """Middle (2,) of a cell in meters: the start cell is the origin, x grows with the column, y with the row."""
    (row, column), (start_row, start_column) = cell, CELLS[maze][0]
    return SCALE * np.array([column - start_column, row - start_row], np.float64)


def ant_model(maze: str) -> ElementTree.Element:
    """gymnasium's ant with D4RL's time step, torque and contacts, among the maze's walls."""
    model = ElementTree.parse(os.path.join(os.path.dirname(mujoco_env.__file__), "assets", "ant.xml")).getroot()
    only(model, "option").set("timestep", "0.02")
    contacts = only(model, "default/geom")
    contacts.set("solref", "0.02 1")
    contacts.set("solimp", "0.8 0.8 0.01")
    for motor in only(model, "actuator"):
        motor.set("gear", "30")
    world = only(model, "worldbody")
    half = np.array([SCALE / 2, SCALE / 2, WALL_HEIGHT / 2])
    for row, column in np.argwhere(maze_walls(maze)):
        middle = np.append(cell_xy(maze, (row, column)), half[2])
        add_box(world, f"wall_{row}_{column}", middle, half, contype="1", conaffinity="1", rgba="0.7 0.5 0.3 1")
    return model


class D4RLAntMaze(Composed):
    """See the module."""

    def __init__(self, maze: str = "large", render_mode: str | None = None) -> None:
        if maze not in CELLS:
            raise ValueError(f"maze={maze!r} is none of {', '.join(CELLS)}.")
        self.maze = maze
        with model_file(ant_model(maze)) as path:
            simulator = AntEnv(
                xml_file=path,
                exclude_current_positions_from_observation=False,
                include_cfrc_ext_in_observation=False,
                render_mode=render_mode,
            )
        super().__init__(simulator, 31)
        self.goal = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start at the origin with a new goal; `options={"goal": (x, y)}` chooses it (meters)."""
        state = self.reset_simulator(seed)
        drawn = self.np_random.uniform(0.0, SCALE / 4, 2) + self.np_random.uniform(0.0, SCALE / 8, 2)
        self.goal = np.maximum(cell_xy(self.maze, CELLS[self.maze][1]) + drawn, 0.0)
        if options is not None and "goal" in options:
            self.goal = np.asarray(options["goal"], np.float64)
        return self._observe(state), {"success": False}

    def step(self, action: Any):
        """One step of 0.1 s."""
        state, *_ = self.simulator.step(np.clip(action, -1.0, 1.0))
        arrived = bool(np.linalg.norm(state[:2] - self.goal) <= ARRIVAL)
        return self._observe(state), float(arrived), arrived, False, {"success": arrived}

    def _observe(self, state: np.ndarray) -> np.ndarray:
        return np.concatenate([state, self.goal]).astype(np.float32)
