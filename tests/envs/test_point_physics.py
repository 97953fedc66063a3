"""The point mass moves exactly as gymnasium-robotics' PointMaze does, whatever the batch."""

import gymnasium
import numpy as np
import ringrl_envs
from ringrl_envs.maze_map import MazeMap
from ringrl_envs.point_physics import PointPhysics


def test_same_trajectory_as_gymnasium_robotics_including_walls_and_the_speed_limit():
    ringrl_envs.register()
    env = gymnasium.make("PointMaze_UMaze-v3")
    env.reset(seed=0)
    point = env.unwrapped
    physics = PointPhysics(MazeMap.named("umaze"), 1)
    state = np.concatenate([point.data.qpos, point.data.qvel])
    rng = np.random.default_rng(0)
    force = np.zeros(2)
    fastest = slowest = 0.0
    for step in range(280):
        if step % 40 == 0:
            force = rng.choice([-1.3, 1.3], 2) * rng.uniform(0.5, 1.0, 2)  # beyond the limits now and then
        observation = env.step(force)[0]["observation"]
        before, state = state, physics.advance(state[None], force[None], 1)[0]
        np.testing.assert_allclose(state, observation, rtol=0, atol=1e-9)
        fastest = max(fastest, np.abs(state[2:]).max())
        slowest = min(slowest, -np.abs(state[2:] - before[2:]).max())
    assert fastest > 5.0  # the limit was met
    assert slowest < -1.0  # a wall was hit
    env.close()


def test_a_state_does_not_depend_on_its_batch_or_on_threads():
    maze = MazeMap.named("open")
    rng = np.random.default_rng(1)
    states = np.zeros((600, 4))
    forces = rng.uniform(-1, 1, (600, 2))
    threaded = PointPhysics(maze, 600, threads=2)
    alone = PointPhysics(maze, 1)
    for _ in range(6):
        following = threaded.advance(states, forces, 20)
        for i in (0, 299, 599):
            np.testing.assert_array_equal(alone.advance(states[i : i + 1], forces[i : i + 1], 20)[0], following[i])
        states = following
    assert np.abs(states[:, :2]).max() > 1.0
    threaded.close()


def test_maze_cells_and_meters_are_those_of_gymnasium_robotics():
    ringrl_envs.register()
    env = gymnasium.make("PointMaze_Medium-v3").unwrapped
    maze = MazeMap.from_cells(env.maze.maze_map)
    for cell in maze.free_cells:
        np.testing.assert_array_equal(maze.to_xy(cell), env.maze.cell_rowcol_to_xy(cell))
        np.testing.assert_array_equal(
            maze.to_cell(maze.to_xy(cell) + 0.4), env.maze.cell_xy_to_rowcol(maze.to_xy(cell) + 0.4)
        )


def test_next_cell_walks_a_shortest_way():
    maze = MazeMap.from_cells([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]])
    cell, path = (1, 1), []
    while cell != (3, 1):
        cell = tuple(maze.next_cell[cell][3, 1].tolist())
        path.append(cell)
    assert path == [(1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1)]
