"""HiddenGoalPointMaze: MuJoCo's PointMaze with a goal that is not seen, only felt by its reward.

gymnasium-robotics' point mass in one of its mazes. Observation: position and velocity (x, y, vx, vy; meters and
meters per second). Action: force in [-1, 1] per axis, held for `action_repeat` simulator steps of 0.01 s. Reward 1
for every decision that ends within `goal_radius` of the goal. A fixed start, at rest. A task is a goal: a random free
cell plus up to `goal_noise` of a cell in x and in y, redrawn while the start would already earn the reward; ids 0 to
`training_tasks` - 1 for training, the rest held out, all drawn from `task_seed`. Arguments of both forms:

maze: open, umaze, medium, large, or rows of cells (1 is a wall).
start_cell: (row, column); the free cell nearest to the middle by default.
renderer: "top_down" draws in numpy and works anywhere; "mujoco" needs an OpenGL backend (MUJOCO_GL).
"""

import dataclasses
import importlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from ringrl_envs.drawing import AGENT, GOAL, maze_frame
from ringrl_envs.maze_map import MazeMap
from ringrl_envs.point_physics import PointPhysics
from ringrl_envs.task_env import TaskEnv
from ringrl_envs.task_vector_env import TaskVectorEnv
from ringrl_envs.tasks import TaskSplit

NAME = "ringrl/HiddenGoalPointMaze-v0"
OBSERVED_SPEED = 10.0  # bound of the observation space; the physics keeps speeds near 5
FRAME_SIZE = 480
MAX_DRAWS = 10_000


@dataclasses.dataclass(frozen=True)
class PointMazeSettings:
    """The arguments that both forms share; see the module."""

    maze: str | Sequence[Sequence[Any]] = "open"
    max_steps: int = 20
    action_repeat: int = 10
    training_tasks: int = 64
    held_out_tasks: int = 16
    task_seed: int = 0
    start_cell: Sequence[int] | None = None
    goal_radius: float = 0.45
    goal_noise: float = 0.5
    renderer: str = "top_down"

    def __post_init__(self) -> None:
        if self.action_repeat < 1 or self.goal_radius <= 0:
            raise ValueError(f"{NAME}: action_repeat must be at least 1 and goal_radius positive.")
        if not 0.0 <= self.goal_noise <= 0.5:
            raise ValueError(f"{NAME}: goal_noise={self.goal_noise} must be 0 to 0.5, or goals could lie in walls.")
        if self.renderer not in ("top_down", "mujoco"):
            raise ValueError(f"{NAME}: renderer={self.renderer!r} is neither top_down nor mujoco.")

    def split(self) -> TaskSplit:
        """Training and held-out tasks."""
        return TaskSplit(self.training_tasks, self.held_out_tasks)


def start_position(maze: MazeMap, start_cell: Sequence[int] | None) -> np.ndarray:
    """Center of the start cell, meters (ValueError when it is not a free cell)."""
    if start_cell is None:
        return maze.to_xy(maze.central_cell())
    if list(start_cell) not in maze.free_cells.tolist():
        raise ValueError(f"{NAME}: start_cell={tuple(start_cell)} is not a free cell of the maze.")
    return maze.to_xy(np.array(start_cell))


def hidden_goals(maze: MazeMap, start: np.ndarray, settings: PointMazeSettings) -> np.ndarray:
    """Goal of every task, (count, 2) meters (ValueError when the maze has no room for one)."""
    rng = np.random.default_rng(settings.task_seed)
    goals: list[np.ndarray] = []
    for _ in range(MAX_DRAWS + 100 * settings.split().count):
        cell = maze.free_cells[rng.integers(len(maze.free_cells))]
        goal = maze.to_xy(cell) + rng.uniform(-settings.goal_noise, settings.goal_noise, 2)
        if np.linalg.norm(goal - start) > settings.goal_radius:
            goals.append(goal)
        if len(goals) == settings.split().count:
            return np.array(goals)
    raise ValueError(f"{NAME}: goal_radius={settings.goal_radius} leaves no room for a goal away from the start.")


def observation_space(maze: MazeMap) -> spaces.Box:
    """Position within the maze, and velocity."""
    high = np.concatenate([maze.half_extent, [OBSERVED_SPEED, OBSERVED_SPEED]]).astype(np.float32)
    return spaces.Box(-high, high, dtype=np.float32)


def top_down_frame(maze: MazeMap, goal: np.ndarray, radius: float, position: np.ndarray) -> np.ndarray:
    """Walls, the goal's disc and the point, (height, width, 3) uint8."""
    goal_row, goal_column = maze.to_grid(goal)
    row, column = maze.to_grid(position)
    return maze_frame(maze.walls, [(goal_row, goal_column, radius, GOAL, 0.45), (row, column, 0.14, AGENT, 1.0)])


def mujoco_frame(physics: PointPhysics, goal: np.ndarray, state: np.ndarray) -> np.ndarray:
    """MuJoCo's own picture from above, (480, 480, 3) uint8.

    Raises:
        ValueError: no OpenGL backend works here.
    """
    mujoco: Any = importlib.import_module("mujoco")
    data = mujoco.MjData(physics.model)
    data.qpos[:], data.qvel[:] = state[:2], state[2:]
    physics.model.site("target").pos[:2] = goal
    mujoco.mj_forward(physics.model, data)
    camera = mujoco.MjvCamera()
    camera.elevation, camera.distance = -90.0, 2.6 * (float(np.abs(physics.model.geom_pos[:, :2]).max()) + 0.5)
    backend = os.environ.get("MUJOCO_GL", "")
    try:
        if backend.lower() in ("disable", "disabled", "off", "false", "0"):
            raise RuntimeError("rendering is switched off")
        with mujoco.Renderer(physics.model, FRAME_SIZE, FRAME_SIZE) as renderer:
            renderer.update_scene(data, camera)
            return renderer.render()
    except Exception as error:  # every backend fails in its own way
        raise ValueError(
            f"{NAME}: renderer=mujoco found no OpenGL with MUJOCO_GL={backend!r} ({error}):"
            " use renderer=top_down, or MUJOCO_GL=egl or osmesa where it is installed."
        ) from error


class HiddenGoalPointMaze(TaskEnv):
    """The single form."""

    name = NAME

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        self.settings = PointMazeSettings(**settings)
        super().__init__(self.settings.split(), self.settings.max_steps, render_mode)
        self.maze = MazeMap.named(self.settings.maze)
        self.start = start_position(self.maze, self.settings.start_cell)
        self.task_goals = hidden_goals(self.maze, self.start, self.settings)
        self.physics = PointPhysics(self.maze, 1)
        self.observation_space = observation_space(self.maze)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._start()

    @classmethod
    def split_tasks(cls, **kwargs: Any) -> TaskSplit:
        """64 training and 16 held-out tasks, unless told otherwise."""
        kwargs.pop("render_mode", None)
        return PointMazeSettings(**kwargs).split()

    def _start(self) -> None:
        self.state = np.concatenate([self.start, np.zeros(2)])

    def _advance(self, action: Any) -> tuple[float, bool]:
        self.state = self.physics.advance(self.state[None], np.asarray(action)[None], self.settings.action_repeat)[0]
        return float(self._succeeded()), False

    def _observe(self) -> np.ndarray:
        return self.state.astype(np.float32)

    def _succeeded(self) -> bool:
        offset = self.state[:2] - self.task_goals[self.task_id]
        return bool(np.sqrt(np.square(offset).sum()) <= self.settings.goal_radius)

    def _frame(self) -> np.ndarray:
        goal = self.task_goals[self.task_id]
        if self.settings.renderer == "mujoco":
            return mujoco_frame(self.physics, goal, self.state)
        return top_down_frame(self.maze, goal, self.settings.goal_radius, self.state[:2])

    def close(self) -> None:
        """Free the simulator."""
        self.physics.close()


class HiddenGoalPointMazeVector(TaskVectorEnv):
    """The vectorized form: same arguments, same physics, same trajectories."""

    name = NAME

    def __init__(self, num_envs: int = 1, render_mode: str | None = None, **settings: Any) -> None:
        self.settings = PointMazeSettings(**settings)
        self.maze = MazeMap.named(self.settings.maze)
        action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        split, max_steps = self.settings.split(), self.settings.max_steps
        super().__init__(num_envs, split, max_steps, observation_space(self.maze), action_space, render_mode)
        self.start = start_position(self.maze, self.settings.start_cell)
        self.task_goals = hidden_goals(self.maze, self.start, self.settings)
        self.physics = PointPhysics(self.maze, num_envs)
        self.states = np.tile(np.concatenate([self.start, np.zeros(2)]), (num_envs, 1))

    @property
    def goals(self) -> np.ndarray:
        """Hidden goal of each sub-environment's task, (num_envs, 2) meters."""
        return self.task_goals[self.task_id]

    def _start(self, mask: np.ndarray) -> None:
        self.states[mask] = np.concatenate([self.start, np.zeros(2)])

    def _advance(self, actions: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = self.physics.advance(self.states, actions, self.settings.action_repeat)
        self.states = np.where(active[:, None], moved, self.states)
        return (self._succeeded() & active).astype(np.float64), np.zeros(self.num_envs, bool)

    def _observe(self) -> np.ndarray:
        return self.states.astype(np.float32)

    def _succeeded(self) -> np.ndarray:
        offset = self.states[:, :2] - self.goals
        return np.sqrt(np.square(offset).sum(axis=1)) <= self.settings.goal_radius

    def _frame(self, index: int) -> np.ndarray:
        goal, state = self.goals[index], self.states[index]
        if self.settings.renderer == "mujoco":
            return mujoco_frame(self.physics, goal, state)
        return top_down_frame(self.maze, goal, self.settings.goal_radius, state[:2])

    def close_extras(self, **_: Any) -> None:
        """Free the simulator."""
        self.physics.close()
