"""DarkKeyToDoor: a square grid with a hidden key, and then a hidden door.

After Laskin et al. 2022 (arXiv 2210.14215), with a fixed start in the center. Observation: the cell (row, column)
alone; whether the key has been found is told only by the reward. Actions as in DarkRoom. Reward 1 on first reaching
the key, and 1 on first reaching the door with the key, which ends the episode. A task is a pair (key, door) of
different cells, neither of them the start; `task_seed` draws the tasks, no pair twice.
"""

from typing import Any

import numpy as np
from gymnasium import spaces

from ringrl_envs.dark_room import MOVES, cell_space, check_grid, check_moves
from ringrl_envs.drawing import DOOR, KEY, grid_frame
from ringrl_envs.task_env import TaskEnv
from ringrl_envs.task_vector_env import TaskVectorEnv
from ringrl_envs.tasks import TaskSplit

NAME = "ringrl/DarkKeyToDoor-v0"


def key_door_pairs(size: int, count: int, task_seed: int) -> np.ndarray:
    """(count, 2, 2) int64: key cell and door cell of every task (ValueError: more tasks than pairs)."""
    cells = np.delete(np.arange(size * size), (size // 2) * size + size // 2)
    possible = len(cells) * (len(cells) - 1)
    if count > possible:
        raise ValueError(f"{NAME}: {count} tasks, but a grid of size {size} has {possible} pairs of key and door.")
    pairs = np.random.default_rng(task_seed).choice(possible, count, replace=False)
    key, door = np.divmod(pairs, len(cells) - 1)
    door = door + (door >= key)
    return np.stack([np.stack(np.divmod(cells[place], size), axis=-1) for place in (key, door)], axis=1)


def key_to_door_split(training_tasks: int = 256, held_out_tasks: int = 32, **_: Any) -> TaskSplit:
    """256 training and 32 held-out tasks, unless told otherwise."""
    return TaskSplit(training_tasks, held_out_tasks)


class DarkKeyToDoor(TaskEnv):
    """The single form."""

    name = NAME

    def __init__(
        self,
        size: int = 9,
        max_steps: int = 50,
        training_tasks: int = 256,
        held_out_tasks: int = 32,
        task_seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        check_grid(self.name, size)
        super().__init__(TaskSplit(training_tasks, held_out_tasks), max_steps, render_mode)
        self.size = size
        self.pairs = key_door_pairs(size, self.task_split.count, task_seed)
        self.observation_space = cell_space(size)
        self.action_space = spaces.Discrete(len(MOVES))
        self._start()

    @classmethod
    def split_tasks(cls, **kwargs: Any) -> TaskSplit:
        """See `key_to_door_split`."""
        return key_to_door_split(**kwargs)

    def _start(self) -> None:
        self.row = self.column = self.size // 2
        self.has_key = self.opened = False

    def _advance(self, action: Any) -> tuple[float, bool]:
        move = MOVES[int(check_moves(self.name, np.asarray(action)))]
        self.row = min(max(self.row + int(move[0]), 0), self.size - 1)
        self.column = min(max(self.column + int(move[1]), 0), self.size - 1)
        here = [self.row, self.column]
        key, door = self.pairs[self.task_id].tolist()
        if self.has_key and not self.opened and here == door:
            self.opened = True
            return 1.0, True
        if not self.has_key and here == key:
            self.has_key = True
            return 1.0, False
        return 0.0, False

    def _observe(self) -> np.ndarray:
        return np.array([self.row, self.column], np.float32)

    def _succeeded(self) -> bool:
        return self.opened

    def _frame(self) -> np.ndarray:
        return _frame(self.size, self.pairs[self.task_id], self.has_key, np.array([self.row, self.column]))


class DarkKeyToDoorVector(TaskVectorEnv):
    """The vectorized form: same arguments, same trajectories."""

    name = NAME

    def __init__(
        self,
        num_envs: int = 1,
        size: int = 9,
        max_steps: int = 50,
        training_tasks: int = 256,
        held_out_tasks: int = 32,
        task_seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        check_grid(self.name, size)
        split = TaskSplit(training_tasks, held_out_tasks)
        super().__init__(num_envs, split, max_steps, cell_space(size), spaces.Discrete(len(MOVES)), render_mode)
        self.size = size
        self.pairs = key_door_pairs(size, split.count, task_seed)
        self.cells = np.full((num_envs, 2), size // 2, np.int64)
        self.has_key = np.zeros(num_envs, bool)
        self.opened = np.zeros(num_envs, bool)

    @property
    def goals(self) -> np.ndarray:
        """Hidden cell to go to next, (num_envs, 2): the key, then the door."""
        return self.pairs[self.task_id, self.has_key.astype(np.int64)]

    def _start(self, mask: np.ndarray) -> None:
        self.cells[mask] = self.size // 2
        self.has_key[mask] = False
        self.opened[mask] = False

    def _advance(self, actions: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moves = MOVES[check_moves(self.name, actions)] * active[:, None]
        self.cells = np.clip(self.cells + moves, 0, self.size - 1)
        reached = (self.cells == self.goals).all(axis=1) & active
        opened = reached & self.has_key
        self.has_key = self.has_key | reached
        self.opened = self.opened | opened
        return reached.astype(np.float64), opened

    def _observe(self) -> np.ndarray:
        return self.cells.astype(np.float32)

    def _succeeded(self) -> np.ndarray:
        return self.opened.copy()

    def _frame(self, index: int) -> np.ndarray:
        return _frame(self.size, self.pairs[self.task_id[index]], bool(self.has_key[index]), self.cells[index])


def _frame(size: int, pair: np.ndarray, has_key: bool, cell: np.ndarray) -> np.ndarray:
    key, door = ((int(row), int(column)) for row, column in pair)
    return grid_frame(size, [(door, DOOR)] if has_key else [(door, DOOR), (key, KEY)], (int(cell[0]), int(cell[1])))
