"""A maze as cells: where its walls are in the simulation's meters, and the way from cell to cell.

The geometry is that of gymnasium-robotics' mazes: cells of one meter, row 0 at the top, the origin at the center.
"""

import dataclasses
import functools
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from ringrl_envs.robotics import robotics_module

WALL = 1
MAP_NAMES = {"open": "OPEN", "umaze": "U_MAZE", "medium": "MEDIUM_MAZE", "large": "LARGE_MAZE"}


@dataclasses.dataclass(frozen=True, eq=False)
class MazeMap:
    """Walls (rows, columns) bool, True where a wall stands."""

    walls: np.ndarray

    @classmethod
    def from_cells(cls, cells: Sequence[Sequence[Any]]) -> "MazeMap":
        """From rows of cells, 1 for a wall and anything else free, as gymnasium-robotics writes its maps.

        Raises:
            ValueError: rows of different length, no free cell, or a way out of the maze.
        """
        if len({len(row) for row in cells}) != 1:
            raise ValueError("maze: all rows of the map must have the same length.")
        walls = np.array([[cell == WALL for cell in row] for row in cells], bool)
        if walls.all():
            raise ValueError("maze: the map has no free cell.")
        if not (walls[[0, -1]].all() and walls[:, [0, -1]].all()):
            raise ValueError("maze: the map must be closed by walls (1) all around.")
        return cls(walls)

    @classmethod
    def named(cls, maze: str | Sequence[Sequence[Any]]) -> "MazeMap":
        """One of gymnasium-robotics' maps by name (open, umaze, medium, large), or rows of cells.

        Raises:
            ValueError: unknown name.
        """
        if not isinstance(maze, str):
            return cls.from_cells(maze)
        if maze not in MAP_NAMES:
            raise ValueError(f"maze={maze!r} is none of {', '.join(MAP_NAMES)}: or give the map as rows of cells.")
        return cls.from_cells(getattr(robotics_module("envs.maze.maps"), MAP_NAMES[maze]))

    @property
    def half_extent(self) -> np.ndarray:
        """Half the width and half the height of the maze, meters (x, y)."""
        return np.array([self.walls.shape[1], self.walls.shape[0]], np.float64) / 2

    @functools.cached_property
    def free_cells(self) -> np.ndarray:
        """(F, 2) int64: row and column of the free cells, in reading order."""
        return np.argwhere(~self.walls)

    def to_xy(self, cells: np.ndarray) -> np.ndarray:
        """Centers (..., 2) in meters of cells (..., 2)."""
        cells = np.asarray(cells)
        x, y = self.half_extent
        return np.stack([cells[..., 1] + 0.5 - x, y - (cells[..., 0] + 0.5)], axis=-1)

    def to_grid(self, xy: np.ndarray) -> np.ndarray:
        """Continuous row and column (..., 2) of points (..., 2) in meters; whole parts are the cell."""
        xy = np.asarray(xy)
        x, y = self.half_extent
        return np.stack([y - xy[..., 1], xy[..., 0] + x], axis=-1)

    def to_cell(self, xy: np.ndarray) -> np.ndarray:
        """Cells (..., 2) int64 that hold the points (..., 2), kept within the map."""
        cells = np.floor(self.to_grid(xy)).astype(np.int64)
        return np.clip(cells, 0, np.array(self.walls.shape) - 1)

    def is_free(self, xy: np.ndarray) -> np.ndarray:
        """Whether points (..., 2) lie in free cells."""
        cells = self.to_cell(xy)
        return ~self.walls[cells[..., 0], cells[..., 1]]

    @functools.cached_property
    def next_cell(self) -> np.ndarray:
        """(rows, columns, rows, columns, 2) int64: from [cell], on a shortest way to [goal], the cell to go to next.

        Found by breadth-first search from every goal; -1 where there is no way.
        """
        rows, columns = self.walls.shape
        table = np.full((rows, columns, rows, columns, 2), -1, np.int64)
        for goal_row, goal_column in self.free_cells:
            table[goal_row, goal_column, goal_row, goal_column] = goal_row, goal_column
            queue = deque([(int(goal_row), int(goal_column))])
            while queue:
                row, column = queue.popleft()
                for neighbour in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                    if not self.walls[neighbour] and table[neighbour][goal_row, goal_column, 0] < 0:
                        table[neighbour][goal_row, goal_column] = row, column
                        queue.append(neighbour)
        return table

    def central_cell(self) -> np.ndarray:
        """The free cell nearest to the middle of the free cells (the first of several)."""
        middle = self.free_cells.mean(axis=0)
        return self.free_cells[np.argmin(np.square(self.free_cells - middle).sum(axis=1))]
