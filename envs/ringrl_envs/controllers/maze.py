"""The expert of the point mazes: straight to the goal where the way is clear, else along waypoints.

Waypoints are cell centers found by breadth-first search on the maze's map. The force is 8 (waypoint - position) -
1.5 velocity, clipped to [-1, 1].
"""

import numpy as np

from ringrl_envs.maze_map import MazeMap

STIFFNESS = 8.0
DAMPING = 1.5
CLEARANCE = 0.15  # half the width of the lane that must be free of walls; the point's radius is 0.1
SAMPLES = 64
ARRIVAL = 0.3  # meters


def lane_is_free(maze: MazeMap, start: np.ndarray, end: np.ndarray, clearance: float = CLEARANCE) -> np.ndarray:
    """Whether lanes `clearance` to each side of the way from `start` (B, 2) to `end` (B, 2) meet no wall: (B,) bool.

    Points too close to a wall already would see no lane at all, so the lane narrows to a line at its start and end.
    """
    along = end - start
    length = np.maximum(np.sqrt(np.square(along).sum(axis=1, keepdims=True)), 1e-9)
    side = np.stack([-along[:, 1], along[:, 0]], axis=1) / length * clearance
    fractions = np.linspace(0.0, 1.0, SAMPLES)[:, None, None]
    widths = np.minimum(1.0, 4.0 * np.minimum(fractions, 1.0 - fractions))
    center = start + fractions * along
    return np.all(maze.is_free(center + widths * side) & maze.is_free(center - widths * side), axis=0)


def waypoints(maze: MazeMap, positions: np.ndarray, goals: np.ndarray, clearance: float = CLEARANCE) -> np.ndarray:
    """Where to head for next, (B, 2): the goal if its lane is free, else the center of the next cell on the way."""
    cells, goal_cells = maze.to_cell(positions), maze.to_cell(goals)
    following = maze.next_cell[cells[:, 0], cells[:, 1], goal_cells[:, 0], goal_cells[:, 1]]
    free = lane_is_free(maze, positions, goals, clearance)
    direct = free | (following < 0).any(axis=1) | (cells == goal_cells).all(axis=1)
    return np.where(direct[:, None], goals, maze.to_xy(following))


def drive(maze: MazeMap, positions: np.ndarray, velocities: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Forces (B, 2) float32 in [-1, 1]."""
    force = STIFFNESS * (waypoints(maze, positions, goals) - positions) - DAMPING * velocities
    return np.clip(force, -1.0, 1.0).astype(np.float32)


class HiddenGoalExpert:
    """For HiddenGoalPointMaze: reads the hidden goals from the vector environment's `goals` (B, 2)."""

    def __init__(self, vector_env) -> None:
        self.vector_env = vector_env

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Forces (B, 2) for position and velocity (B, 4)."""
        return self.towards(observations, self.vector_env.goals)

    def towards(self, observations: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Forces (B, 2) that lead to the points `places` (B, 2)."""
        return drive(self.vector_env.maze, observations[:, :2], observations[:, 2:4], places)

    def arrived(self, observations: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Where `places` (B, 2) are within ARRIVAL meters: (B,) bool."""
        return np.sqrt(np.square(observations[:, :2] - places).sum(axis=1)) < ARRIVAL

    def random_places(self, rng: np.random.Generator) -> np.ndarray:
        """A random point of a random free cell for every sub-environment, (B, 2), meters."""
        maze, count = self.vector_env.maze, self.vector_env.num_envs
        cells = maze.free_cells[rng.integers(len(maze.free_cells), size=count)]
        return maze.to_xy(cells) + rng.uniform(-0.4, 0.4, (count, 2))


class PointMazeExpert:
    """For gymnasium-robotics' PointMaze: the goal is in the flat observation, the map in the environment.

    Flat order: achieved_goal (2), desired_goal (2), observation (position 2, velocity 2).
    """

    def __init__(self, vector_env) -> None:
        maps = [env.unwrapped.maze.maze_map for env in vector_env.envs]
        if any(cells != maps[0] for cells in maps):
            raise ValueError("the PointMaze controller needs the same maze in all sub-environments.")
        self.maze = MazeMap.from_cells(maps[0])

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Forces (B, 2) for flat observations (B, 8)."""
        return drive(self.maze, observations[:, 4:6], observations[:, 6:8], observations[:, 2:4])
