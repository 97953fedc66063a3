"""D4RL's environments: the observations of its files, its mazes, its ant, its rewards."""

import gymnasium
import numpy as np
import pytest
import ringrl_envs
from d4rl_files import write_d4rl_file
from gymnasium.utils.env_checker import check_env
from ringrl_envs.d4rl import ant_maze, layouts, maze2d
from ringrl_envs.d4rl.registration import D4RL_IDS
from ringrl_envs.registry import find_spec

from ringrl.data.reference_scores import REFERENCE_SCORES
from ringrl.data.sources.d4rl import build_from_d4rl
from ringrl.data.sources.d4rl_tasks import find_task

pytestmark = pytest.mark.simulators

TASKS = [find_task(name) for name in REFERENCE_SCORES]
REAL = {  # a task of every environment but the mazes' variants
    "halfcheetah-medium-v2": "locomotion",
    "walker2d-medium-v2": "locomotion",
    "ant-medium-v2": "locomotion",
    "maze2d-umaze-v1": "maze2d",
    "maze2d-large-dense-v1": "maze2d",
    "antmaze-umaze-v2": "antmaze",
    "antmaze-large-diverse-v2": "antmaze",
    "kitchen-partial-v0": "kitchen",
    "kitchen-mixed-v0": "kitchen",
    "pen-human-v1": "adroit",
    "hammer-cloned-v1": "adroit",
    "relocate-expert-v1": "adroit",
    "door-human-v1": "adroit",
}


def collect(env_id, count=2, steps=12):
    vector = ringrl_envs.make_vector(env_id, count, max_episode_steps=steps)
    behaviour = ringrl_envs.make_controller(env_id, vector, kind="random")
    episodes = ringrl_envs.collect_episodes(vector, [("random", 1.0, behaviour)], episodes_per_task=count, seed=4)
    vector.close()
    return episodes


def assert_comes_back(tmp_path, task, layout):
    described = find_task(task)
    episodes = collect(described.environment)
    file = write_d4rl_file(tmp_path / "file.hdf5", episodes, layout)
    store = build_from_d4rl(file, task, tmp_path / "store")
    kept = [episode.observations[: len(episode.rewards)] for episode in episodes]
    np.testing.assert_array_equal(store.observations, np.concatenate(kept))
    np.testing.assert_array_equal(store.actions, np.concatenate([episode.actions for episode in episodes]))
    rewards = np.concatenate([episode.rewards for episode in episodes])
    np.testing.assert_array_equal(store.rewards, rewards.astype(np.float32))
    env = ringrl_envs.make(store.metadata["environment"], max_episode_steps=described.max_episode_steps)
    assert env.observation_space.shape == (store.spec.observation_size,)
    assert env.action_space.shape == (store.spec.action.size,)
    np.testing.assert_array_equal(env.action_space.high, store.spec.action.high)
    env.close()


def test_a_rollout_of_hopper_comes_back(tmp_path):
    assert_comes_back(tmp_path, "hopper-medium-v2", "locomotion")


@pytest.mark.simulators
@pytest.mark.parametrize(("task", "layout"), REAL.items())
def test_a_rollout_of_every_family_comes_back(tmp_path, task, layout):
    assert_comes_back(tmp_path, task, layout)


def test_every_task_names_an_environment_that_is_registered():
    named = {task.environment for task in TASKS}
    assert {env_id for env_id in named if env_id.startswith("ringrl/")} == set(D4RL_IDS)
    assert all(find_spec(env_id).id == env_id for env_id in named)


def test_evaluation_goals_are_those_of_the_environments():
    for task in TASKS:
        kwargs = find_spec(task.environment).kwargs
        if task.family == "antmaze":
            maze = kwargs["maze"]
            middle = ant_maze.cell_xy(maze, ant_maze.CELLS[maze][1]) + 0.75
            np.testing.assert_allclose(task.goal, middle)
        elif task.family == "maze2d":
            np.testing.assert_allclose(task.goal, maze2d.GOALS[kwargs["maze"]])


@pytest.mark.parametrize("maze", maze2d.GOALS)
def test_starts_and_goals_are_free_cells(maze):
    walls = layouts.maze_walls(maze)
    cells = [maze2d.GOALS[maze], *ant_maze.CELLS.get(maze, ())]
    assert not any(walls[cell] for cell in cells)
    assert walls[[0, -1]].all()
    assert walls[:, [0, -1]].all()


def test_an_unknown_maze_is_refused():
    with pytest.raises(ValueError, match="maze='huge' is none of"):
        layouts.maze_walls("huge")


@pytest.mark.simulators
@pytest.mark.filterwarnings("ignore:.*(minimum|maximum) value is -?infinity")
@pytest.mark.parametrize("env_id", [env_id for env_id in D4RL_IDS if "Maze" not in env_id or "Large" in env_id])
def test_gymnasium_check_env_has_nothing_to_say(env_id):
    env = gymnasium.make(env_id).unwrapped
    check_env(env, skip_render_check=True)
    env.close()


def wall_places(model):
    return {tuple(np.round(model.geom_pos[i, :2], 6)) for i in range(model.ngeom) if model.geom_type[i] == 6}


@pytest.mark.simulators
@pytest.mark.parametrize(("maze", "name"), [("umaze", "U_MAZE"), ("medium", "MEDIUM_MAZE"), ("large", "LARGE_MAZE")])
def test_ant_maze_is_gymnasium_robotics_turned_and_shifted(maze, name):
    """Its rows reversed and its start cell moved to the origin, its walls stand where D4RL's do."""
    from gymnasium_robotics.envs.maze import maps
    from gymnasium_robotics.envs.maze.maze_v4 import Maze

    rows = getattr(maps, name)[::-1]
    twin = Maze(rows, 4.0, 0.5)
    start = twin.cell_rowcol_to_xy(np.array([len(rows) - 2, 1]))
    walls = [(i, j) for i, row in enumerate(rows) for j, cell in enumerate(row) if cell == 1]
    expected = {tuple(np.round(twin.cell_rowcol_to_xy(np.array(cell)) - start, 6)) for cell in walls}
    env = ant_maze.D4RLAntMaze(maze)
    assert wall_places(env.simulator.model) == expected
    env.close()


@pytest.mark.simulators
def test_the_ant_is_d4rl_s():
    env = ant_maze.D4RLAntMaze("umaze")
    model = env.simulator.model
    assert (model.opt.timestep, env.simulator.dt) == (0.02, pytest.approx(0.1))
    np.testing.assert_array_equal(model.actuator_gear[:, 0], 30.0)
    observation, _ = env.reset(seed=0)
    data = env.simulator.data
    np.testing.assert_allclose(observation, np.concatenate([data.qpos, data.qvel, env.goal]), rtol=1e-6)
    assert np.abs(observation[:2]).max() < 0.2  # the origin
    assert np.all((observation[-2:] >= [0.0, 8.0]) & (observation[-2:] <= [1.5, 9.5]))
    env.reset(seed=0, options={"goal": (0.1, 0.1)})
    _, reward, terminated, _, info = env.step(np.zeros(8))
    assert (reward, terminated, info["success"]) == (1.0, True, True)
    env.close()


@pytest.mark.simulators
def test_the_point_moves_as_gymnasium_robotics_does():
    """The same forces lead to the same velocities and shifts, away from walls."""
    twin = gymnasium.make("PointMaze_Open-v3").unwrapped
    env = maze2d.D4RLMaze2d("open", "dense")
    twin.reset(seed=0)
    env.reset(seed=0)
    env.simulator.set_state(np.array([2.0, 3.0]), np.zeros(2))
    twin.point_env.set_state(np.zeros(2), np.zeros(2))
    rng = np.random.default_rng(0)
    for _ in range(30):
        action = rng.uniform(-1, 1, 2)
        observation, reward, *_ = env.step(action)
        expected = twin.step(action)[0]["observation"]
        np.testing.assert_allclose(observation[:4] - [2.0, 3.0, 0.0, 0.0], expected, atol=1e-6)
        assert reward == pytest.approx(np.exp(-np.linalg.norm(expected[:2])), abs=1e-5)
    env.close()
    twin.close()


@pytest.mark.simulators
def test_maze2d_s_walls_stand_at_d4rl_s_places():
    env = maze2d.D4RLMaze2d("large")
    expected = {tuple(np.round(cell - np.array([0.2, 0.2]), 6)) for cell in np.argwhere(layouts.maze_walls("large"))}
    assert wall_places(env.simulator.model) == expected
    env.close()


@pytest.mark.simulators
def test_kitchen_shows_positions_and_goal_and_rewards_a_task_once():
    env = ringrl_envs.make("ringrl/D4RLKitchen-v0")
    simulator = env.unwrapped.simulator
    observation, _ = env.reset(seed=0)
    np.testing.assert_allclose(observation[:30], simulator.data.qpos, atol=0.011)
    goal = np.zeros(30)
    goal[[17, 18, 19, 22]] = -0.69, -0.05, 0.37, -0.75
    goal[23:] = -0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06
    np.testing.assert_allclose(observation[30:], goal, atol=1e-6)
    simulator.data.qpos[22] = -0.75
    rewards = [env.step(np.zeros(9))[1] for _ in range(2)]
    assert rewards == [1.0, 0.0]
    env.close()


@pytest.mark.simulators
@pytest.mark.parametrize("name", ["Door", "Hammer", "Relocate", "Pen"])
def test_hands_reward_as_d4rl_does(name):
    """The twin adds the distance to the object that D4RL takes off; the pen's reward is the twin's, but it may fall."""
    twin, env = (gymnasium.make(f"AdroitHand{name}-v1").unwrapped, ringrl_envs.make(f"ringrl/D4RL{name}-v0").unwrapped)
    expected, _ = twin.reset(seed=3)
    observation, _ = env.reset(seed=3)
    distance = {"Door": slice(-4, -1), "Relocate": slice(-9, -6)}
    rng = np.random.default_rng(1)
    for _ in range(60):
        np.testing.assert_allclose(observation, expected, rtol=1e-5, atol=1e-6)
        action = rng.uniform(-1, 1, env.action_space.shape)
        expected, reward, *_ = twin.step(action)
        observation, own, terminated, *_ = env.step(action)
        apart = expected[-13:-10] - expected[-10:-7] if name == "Hammer" else expected[distance.get(name, slice(0, 0))]
        np.testing.assert_allclose(own, reward - 0.2 * np.linalg.norm(apart), rtol=1e-9, atol=1e-9)
        assert terminated == (name == "Pen" and expected[-19] < 0.075)
    env.close()
    twin.close()


@pytest.mark.simulators
def test_the_ant_of_locomotion_has_no_contact_forces():
    observation = collect("ringrl/D4RLAnt-v0", 1, 5)[0].observations
    assert np.abs(observation[:, :27]).min(axis=0).max() > 0
    np.testing.assert_array_equal(observation[:, 27:], 0)
