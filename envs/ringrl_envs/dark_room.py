"""DarkRoom: a square grid with a goal that is not seen, only felt by its reward.

After Laskin et al. 2022, "In-context Reinforcement Learning with Algorithm Distillation" (arXiv 2210.14215), with a
fixed start in the center. Observation: the cell (row, column). Actions: 0 stay, 1 up, 2 down, 3 left, 4 right;
walls stop a move. `reward="dense"`: 1 for every step that ends on the goal. `reward="sparse"`: 1 on the first, and
the episode ends there. One task per cell; a fixed shuffle (`task_seed`) decides which are held out.
"""

from typing import Any

import numpy as np
from gymnasium import spaces

from ringrl_envs.drawing import GOAL, grid_frame
from ringrl_envs.task_env import TaskEnv
from ringrl_envs.task_vector_env import TaskVectorEnv
from ringrl_envs.tasks import TaskSplit

MOVES = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)], np.int64)
NAME = "ringrl/DarkRoom-v0"


def dark_room_goals(size: int, task_seed: int) -> np.ndarray:
    """Goal cell of every task, (size * size, 2) int64."""
    order = np.random.default_rng(task_seed).permutation(size * size)
    return np.stack(np.divmod(order, size), axis=1)


def dark_room_split(size: int = 9, held_out_tasks: int | None = None, **_: Any) -> TaskSplit:
    """A fifth of the cells is held out, unless told otherwise (9 x 9: 65 training, 16 held out)."""
    held_out = size * size // 5 if held_out_tasks is None else held_out_tasks
    return TaskSplit(size * size - held_out, held_out)


def check_grid(name: str, size: int) -> None:
    """Refuse a grid without room to move (ValueError)."""
    if size < 2:
        raise ValueError(f"{name}: size={size} must be at least 2.")


def check_moves(name: str, actions: np.ndarray) -> np.ndarray:
    """Actions as int64 (ValueError unless whole numbers from 0 to 4)."""
    if actions.dtype.kind not in "iu" or actions.min() < 0 or actions.max() >= len(MOVES):
        raise ValueError(f"{name}: actions must be whole numbers from 0 to {len(MOVES) - 1}, got {actions!r}.")
    return actions.astype(np.int64)


def cell_space(size: int) -> spaces.Box:
    """Observations: row and column, 0 to size - 1."""
    return spaces.Box(0.0, float(size - 1), (2,), np.float32)


def check_reward(name: str, reward: str) -> None:
    """Refuse an unknown reward (ValueError)."""
    if reward not in ("dense", "sparse"):
        raise ValueError(f"{name}: reward={reward!r} is neither dense nor sparse.")


class DarkRoom(TaskEnv):
    """The single form."""

    name = NAME

    def __init__(
        self,
        size: int = 9,
        max_steps: int = 20,
        reward: str = "dense",
        held_out_tasks: int | None = None,
        task_seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        check_grid(self.name, size)
        check_reward(self.name, reward)
        super().__init__(dark_room_split(size, held_out_tasks), max_steps, render_mode)
        self.size = size
        self.reward = reward
        self.task_goals = dark_room_goals(size, task_seed)
        self.observation_space = cell_space(size)
        self.action_space = spaces.Discrete(len(MOVES))
        self.row = self.column = size // 2

    @classmethod
    def split_tasks(cls, **kwargs: Any) -> TaskSplit:
        """See `dark_room_split`."""
        return dark_room_split(**kwargs)

    def _start(self) -> None:
        self.row = self.column = self.size // 2

    def _advance(self, action: Any) -> tuple[float, bool]:
        move = MOVES[int(check_moves(self.name, np.asarray(action)))]
        self.row = min(max(self.row + int(move[0]), 0), self.size - 1)
        self.column = min(max(self.column + int(move[1]), 0), self.size - 1)
        on_goal = self._succeeded()
        return float(on_goal), on_goal and self.reward == "sparse"

    def _observe(self) -> np.ndarray:
        return np.array([self.row, self.column], np.float32)

    def _succeeded(self) -> bool:
        goal = self.task_goals[self.task_id]
        return bool(self.row == goal[0] and self.column == goal[1])

    def _frame(self) -> np.ndarray:
        goal = self.task_goals[self.task_id]
        return grid_frame(self.size, [((int(goal[0]), int(goal[1])), GOAL)], (self.row, self.column))


class DarkRoomVector(TaskVectorEnv):
    """The vectorized form: same arguments, same trajectories."""

    name = NAME

    def __init__(
        self,
        num_envs: int = 1,
        size: int = 9,
        max_steps: int = 20,
        reward: str = "dense",
        held_out_tasks: int | None = None,
        task_seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        check_grid(self.name, size)
        check_reward(self.name, reward)
        split = dark_room_split(size, held_out_tasks)
        super().__init__(num_envs, split, max_steps, cell_space(size), spaces.Discrete(len(MOVES)), render_mode)
        self.size = size
        self.reward = reward
        self.task_goals = dark_room_goals(size, task_seed)
        self.cells = np.full((num_envs, 2), size // 2, np.int64)

    @property
    def goals(self) -> np.ndarray:
        """Hidden goal cell of each sub-environment's task, (num_envs, 2)."""
        return self.task_goals[self.task_id]

    def _start(self, mask: np.ndarray) -> None:
        self.cells[mask] = self.size // 2

    def _advance(self, actions: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moves = MOVES[check_moves(self.name, actions)] * active[:, None]
        self.cells = np.clip(self.cells + moves, 0, self.size - 1)
        on_goal = self._succeeded() & active
        return on_goal.astype(np.float64), on_goal & (self.reward == "sparse")

    def _observe(self) -> np.ndarray:
        return self.cells.astype(np.float32)

    def _succeeded(self) -> np.ndarray:
        return (self.cells == self.goals).all(axis=1)

    def _frame(self, index: int) -> np.ndarray:
        goal, cell = self.goals[index], self.cells[index]
        return grid_frame(self.size, [((int(goal[0]), int(goal[1])), GOAL)], (int(cell[0]), int(cell[1])))
