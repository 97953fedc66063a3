"""The expert of gymnasium-robotics' AntMaze: waypoints as in the point mazes, reached with a fixed gait."""

import numpy as np

from ringrl_envs.controllers.ant_gait import STEP, Gait, upright, walk
from ringrl_envs.controllers.maze import waypoints
from ringrl_envs.maze_map import MazeMap

# Found by experiments/ant_gait/search.py.
GAIT = Gait(2.797, 0.761, 0.836, 0.215, 2.826, 0.458, 1.757, 1.24, 0.147, 1.707, 0.131, 0.218, -0.046)

CLEARANCE = 0.25  # cells
STRIDE = 0.75  # of the gait's: as fast, and steadier
LEANING = (0.6, 0.8)  # height of the torso's z axis where it stops to regain balance, and where strides are whole
SLOWING = 0.8  # meters from the goal where strides begin to shorten
ARRIVAL = 0.2  # meters from the goal where it stands still
PATIENCE = 20  # steps in which it must move by PROGRESS, else it counts as stuck
PROGRESS = 0.3  # meters
ESCAPE = 12  # steps in another direction when stuck
ESCAPE_TURN = np.deg2rad(137.5)  # added at every escape, so that all directions get their turn


class AntMazeExpert:
    """Reads the goal from the flat observation, the map from the environment; remembers the phase of the steps.

    Flat order: achieved_goal (2), desired_goal (2), observation (its first 27 numbers count). Where the ant has hardly
    moved for PATIENCE steps, it walks another way for ESCAPE steps. On its back it is lost: it cannot turn over.
    """

    def __init__(self, vector_env) -> None:
        mazes = [env.unwrapped.maze for env in vector_env.envs]
        if any(maze.maze_map != mazes[0].maze_map for maze in mazes):
            raise ValueError("the AntMaze controller needs the same maze in all sub-environments.")
        self.maze = MazeMap.from_cells(mazes[0].maze_map)
        self.scale = float(mazes[0].maze_size_scaling)  # meters per cell
        count = vector_env.num_envs
        self.phase = np.zeros(count)
        self.age = np.zeros(count, np.int64)  # steps since the ant was last known to move
        self.anchor = np.zeros((count, 2))  # where it was then
        self.escaping = np.zeros(count, np.int64)  # steps of escape left
        self.turn = np.zeros(count)
        self.reset(np.ones(count, bool))

    def reset(self, mask: np.ndarray) -> None:
        """Episodes begin where `mask` (B,): forget what was before."""
        self.phase[mask] = self.turn[mask] = 0.0
        self.age[mask] = self.escaping[mask] = 0
        self.anchor[mask] = np.inf

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Torques (B, 8) in [-1, 1] for flat observations (B, 31)."""
        observations = observations.astype(np.float64)
        positions, goals = observations[:, :2], observations[:, 2:4]
        distance = np.sqrt(np.square(goals - positions).sum(axis=1))
        aim = self.scale * waypoints(self.maze, positions / self.scale, goals / self.scale, CLEARANCE) - positions
        bearing = np.arctan2(aim[:, 1], aim[:, 0]) + np.where(self._escaping(positions, distance), self.turn, 0.0)
        effort = np.where(distance < ARRIVAL, 0.0, np.clip(distance / SLOWING, 0.4, STRIDE))
        lowest, highest = LEANING
        steady = (upright(observations[:, 5:9]) - lowest) / (highest - lowest)
        effort = np.minimum(effort, np.clip(steady, 0.0, 1.0))
        actions = walk(GAIT, self.phase, observations[:, 4:31], bearing, effort)
        self.phase = (self.phase + 2 * np.pi * GAIT.frequency * STEP) % (2 * np.pi)
        return actions

    def _escaping(self, positions: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """Where the ant is, or from now on shall be, getting away from where it is stuck: (B,) bool."""
        moved = np.sqrt(np.square(positions - self.anchor).sum(axis=1))
        fresh = ~(moved < PROGRESS) | (distance < ARRIVAL) | (self.escaping > 0)
        self.anchor = np.where(fresh[:, None], positions, self.anchor)
        self.age = np.where(fresh, 0, self.age + 1)
        self.escaping = np.maximum(self.escaping - 1, 0)
        stuck = self.age >= PATIENCE
        self.turn = np.where(stuck, self.turn + ESCAPE_TURN, self.turn)
        self.escaping = np.where(stuck, ESCAPE, self.escaping)
        self.age = np.where(stuck, 0, self.age)
        return self.escaping > 0
