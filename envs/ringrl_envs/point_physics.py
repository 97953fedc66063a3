"""The point mass of gymnasium-robotics' PointMaze, many copies at a time, on one MuJoCo model.

Every simulator step does what `gymnasium_robotics.envs.maze.point.PointEnv.step` does: clip the force to [-1, 1] and
the velocity to [-5, 5], then `mj_step`. The copies go through `mujoco.rollout`, which steps them in C++ threads.
Its solver starts cold at each step, so a state depends on the state before and the force alone, never on which
copies share a batch.
"""

import importlib
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np

from ringrl_envs.maze_map import MazeMap
from ringrl_envs.robotics import robotics_module

MAX_SPEED = 5.0
WALL_HEIGHT = 0.4
SMALLEST_THREADED_BATCH = 512  # below it, handing work to threads costs more than it saves (measured)


def load_point_maze(maze: MazeMap) -> Any:
    """The MjModel of a point in this maze, with a site `target` to show a goal.

    Raises:
        ValueError: gymnasium-robotics or mujoco is not installed.
    """
    package = Path(str(robotics_module().__file__)).parent
    mujoco: Any = importlib.import_module("mujoco")
    tree = ElementTree.parse(package / "envs" / "assets" / "point" / "point.xml")
    world = tree.find(".//worldbody")
    assert world is not None
    for row, column in np.argwhere(maze.walls):
        x, y = maze.to_xy(np.array([row, column]))
        ElementTree.SubElement(
            world,
            "geom",
            name=f"block_{row}_{column}",
            type="box",
            pos=f"{x} {y} {WALL_HEIGHT / 2}",
            size=f"0.5 0.5 {WALL_HEIGHT / 2}",
            contype="1",
            conaffinity="1",
            rgba="0.7 0.5 0.3 1",
        )
    ElementTree.SubElement(
        world, "site", name="target", type="sphere", pos=f"0 0 {WALL_HEIGHT / 2}", size="0.2", rgba="1 0 0 0.7"
    )
    return mujoco.MjModel.from_xml_string(ElementTree.tostring(tree.getroot(), encoding="unicode"))


class PointPhysics:
    """Steps `count` points at once; the states (count, 4) are position and velocity, float64."""

    def __init__(self, maze: MazeMap, count: int, threads: int | None = None) -> None:
        self.model = load_point_maze(maze)
        mujoco: Any = importlib.import_module("mujoco")
        rollout: Any = importlib.import_module("mujoco.rollout")
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = available if threads is None else threads
        if count < SMALLEST_THREADED_BATCH or threads < 2:
            threads = 0
        self._data = [mujoco.MjData(self.model) for _ in range(max(threads, 1))]
        self._models = [self.model] * count
        self._rollout = rollout.Rollout(nthread=threads)
        size = mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        assert size == 5, "a PointMaze state is time, position and velocity"
        self._full = np.zeros((count, size))
        self._after = np.zeros((count, 1, size))

    def advance(self, states: np.ndarray, forces: np.ndarray, steps: int) -> np.ndarray:
        """States (count, 4) after `steps` simulator steps of 0.01 s under constant forces (count, 2)."""
        full, after = self._full, self._after
        full[:, 0] = 0.0
        full[:, 1:] = states
        control = np.clip(np.asarray(forces, np.float64), -1.0, 1.0)[:, None]
        for _ in range(steps):
            np.clip(full[:, 3:], -MAX_SPEED, MAX_SPEED, out=full[:, 3:])
            self._rollout.rollout(self._models, self._data, full, control, skip_checks=True, nstep=1, state=after)
            full[:] = after[:, 0]
        return full[:, 1:].copy()

    def close(self) -> None:
        """Stop the threads."""
        self._rollout.close()
