"""The contract of RingRL's environments: gymnasium's checks, tasks, and an equivalent vectorized form."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import ringrl_envs
from gymnasium.utils.env_checker import check_env

DARK_ROOM = "ringrl/DarkRoom-v0"
KEY_TO_DOOR = "ringrl/DarkKeyToDoor-v0"
POINT_MAZE = "ringrl/HiddenGoalPointMaze-v0"
CASES = [
    (DARK_ROOM, {}),
    (DARK_ROOM, {"size": 5, "reward": "sparse", "max_steps": 40}),
    (KEY_TO_DOOR, {"size": 4, "training_tasks": 20, "held_out_tasks": 5, "max_steps": 60}),
    (POINT_MAZE, {"action_repeat": 4}),
    (POINT_MAZE, {"maze": "umaze", "max_steps": 7, "start_cell": (1, 1), "training_tasks": 9}),
]
IDS = ["dense", "sparse", "key-door", "open-maze", "u-maze"]


@pytest.mark.parametrize("env_id", [DARK_ROOM, KEY_TO_DOOR, POINT_MAZE])
def test_gymnasium_check_env_has_nothing_to_say(env_id):
    check_env(gymnasium.make(env_id, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize(("env_id", "kwargs"), CASES, ids=IDS)
def test_vector_form_has_the_trajectories_of_the_single_form(env_id, kwargs):
    count, seed = 6, 11
    vector = ringrl_envs.make_vector(env_id, count, **kwargs)
    singles = [ringrl_envs.make(env_id, **kwargs) for _ in range(count)]
    vector.action_space.seed(3)
    tasks = np.array([0, 1, 2, 3, 4, vector.task_split.count - 1])
    for options in ({}, {"task_id": tasks}):  # tasks drawn from seeds, then given
        observations, infos = vector.reset(seed=seed, options=dict(options))
        for i, env in enumerate(singles):
            own = {"task_id": int(tasks[i])} if options else None
            observation, info = env.reset(seed=seed + i, options=own)
            np.testing.assert_array_equal(observations[i], observation)
            assert infos["task_id"][i] == info["task_id"]
            assert infos["success"][i] == info["success"]
        finished, ended = np.zeros(count, bool), 0
        for _ in range(2 * vector.max_steps):
            actions = vector.action_space.sample()
            observations, rewards, terminations, truncations, infos = vector.step(actions)
            for i, env in enumerate(singles):
                if finished[i]:
                    assert (rewards[i], terminations[i], truncations[i]) == (0.0, False, False)
                    continue
                observation, reward, terminated, truncated, info = env.step(actions[i])
                np.testing.assert_allclose(observations[i], observation, rtol=0, atol=1e-9)
                assert (rewards[i], terminations[i], truncations[i]) == (reward, terminated, truncated)
                assert infos["success"][i] == info["success"]
                if env_id == POINT_MAZE:
                    np.testing.assert_allclose(vector.states[i], env.unwrapped.state, rtol=0, atol=1e-9)
                finished[i] = terminated or truncated
            # Restart one of those that ended, in both forms, and leave the others finished.
            for i in np.flatnonzero(terminations | truncations)[:1]:
                ended += 1
                mask = np.arange(count) == i
                observations, _ = vector.reset(options={"reset_mask": mask})
                np.testing.assert_array_equal(observations[i], singles[i].reset()[0])
                finished[i] = False
        assert ended > 1
    vector.close()


@pytest.mark.parametrize("env_id", [DARK_ROOM, KEY_TO_DOOR, POINT_MAZE])
def test_task_stays_until_it_is_set_again(env_id):
    env = ringrl_envs.make(env_id)
    first = env.reset(seed=5)[1]["task_id"]
    assert env.reset()[1]["task_id"] == first
    assert env.reset(seed=5)[1]["task_id"] == first
    assert len({env.reset(seed=seed)[1]["task_id"] for seed in range(20)}) > 5
    assert env.reset(options={"task_id": 7})[1]["task_id"] == 7
    assert env.reset(seed=5)[1]["task_id"] == 7
    assert env.reset(options={})[1]["task_id"] == 7
    assert env.reset(seed=5, options={"task_id": None})[1]["task_id"] == first

    vector = ringrl_envs.make_vector(env_id, 3)
    vector.reset(seed=0, options={"task_id": np.array([4, 5, 6])})
    options = {"reset_mask": np.array([True, False, False]), "task_id": np.array([9, 9, 9])}
    assert vector.reset(options=options)[1]["task_id"].tolist() == [9, 5, 6]
    assert set(options) == {"reset_mask", "task_id"}
    assert vector.reset(seed=1)[1]["task_id"].tolist() == [9, 5, 6]
    assert vector.reset(options={"task_id": 2})[1]["task_id"].tolist() == [2, 2, 2]
    vector.close()


def test_without_a_task_only_training_tasks_are_drawn():
    vector = ringrl_envs.make_vector(DARK_ROOM, 400)
    drawn = set(vector.reset(seed=0)[1]["task_id"].tolist())
    assert drawn <= set(ringrl_envs.task_ids(DARK_ROOM, "training"))
    assert len(drawn) > 50


@pytest.mark.parametrize(
    ("env_id", "training", "held_out"), [(DARK_ROOM, 65, 16), (KEY_TO_DOOR, 256, 32), (POINT_MAZE, 64, 16)]
)
def test_splits_are_disjoint_fixed_and_have_different_goals(env_id, training, held_out):
    ids = {split: ringrl_envs.task_ids(env_id, split) for split in ("training", "held_out", "all")}
    assert (len(ids["training"]), len(ids["held_out"])) == (training, held_out)
    assert ids["training"] + ids["held_out"] == ids["all"] == list(range(training + held_out))

    def goals(**kwargs):
        env = ringrl_envs.make(env_id, **kwargs).unwrapped
        return np.asarray(env.pairs if env_id == KEY_TO_DOOR else env.task_goals).reshape(training + held_out, -1)

    assert len(np.unique(goals(), axis=0)) == training + held_out
    np.testing.assert_array_equal(goals(), goals())
    assert not np.array_equal(goals(), goals(task_seed=1))


def test_point_maze_goals_lie_in_free_space_away_from_the_start():
    for maze in ("open", "umaze", "medium", "large"):
        env = ringrl_envs.make(POINT_MAZE, maze=maze).unwrapped
        assert env.maze.is_free(env.task_goals).all()
        assert (np.linalg.norm(env.task_goals - env.start, axis=1) > 0.45).all()
        offsets = env.task_goals - env.maze.to_xy(env.maze.to_cell(env.task_goals))
        assert np.abs(offsets).max() > 0.3  # continuous positions, not cell centers


def test_task_ids_follow_the_arguments_and_default_to_one_task():
    assert len(ringrl_envs.task_ids(DARK_ROOM, "all", size=5, reward="sparse")) == 25
    assert ringrl_envs.task_ids(POINT_MAZE, "held_out", training_tasks=3, held_out_tasks=2) == [3, 4]
    for split in ("training", "held_out", "all"):
        assert ringrl_envs.task_ids("Pendulum-v1", split) == [0]


@pytest.mark.parametrize(
    ("env_id", "kwargs", "message"),
    [
        ("ringrl/DarkRom-v0", {}, "did you mean ringrl/DarkRoom-v0"),
        ("no_such_module:Thing-v0", {}, "cannot import 'no_such_module'"),
        (DARK_ROOM, {"sise": 9}, "unexpected keyword argument 'sise'"),
        (DARK_ROOM, {"reward": "none"}, "neither dense nor sparse"),
        (DARK_ROOM, {"size": 1}, "size=1 must be at least 2"),
        (DARK_ROOM, {"max_steps": 0}, "max_steps=0 must be at least 1"),
        (DARK_ROOM, {"held_out_tasks": 81}, "at least 1 must be left to train on"),
        (KEY_TO_DOOR, {"size": 2}, "has 6 pairs of key and door"),
        (POINT_MAZE, {"maze": "round"}, "is none of open, umaze, medium, large"),
        (POINT_MAZE, {"start_cell": (0, 0)}, "is not a free cell"),
        (POINT_MAZE, {"goal_noise": 0.7}, "or goals could lie in walls"),
        (POINT_MAZE, {"goal_radius": 50.0}, "no room for a goal"),
    ],
)
def test_wrong_settings_get_one_clear_line(env_id, kwargs, message):
    for attempt in (lambda: ringrl_envs.make(env_id, **kwargs), lambda: ringrl_envs.make_vector(env_id, 2, **kwargs)):
        with pytest.raises(ValueError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_wrong_tasks_masks_and_actions_get_one_clear_line():
    env = ringrl_envs.make(DARK_ROOM)
    vector = ringrl_envs.make_vector(DARK_ROOM, 2)
    with pytest.raises(ValueError, match="has no task 81: use 0 to 80"):
        env.reset(options={"task_id": 81})
    with pytest.raises(ValueError, match="has no task -1"):
        vector.reset(options={"task_id": np.array([0, -1])})
    with pytest.raises(ValueError, match="not a whole number"):
        env.reset(options={"task_id": 1.5})
    with pytest.raises(ValueError, match="give one id, or one for each of 2"):
        vector.reset(options={"task_id": np.array([0, 1, 2])})
    with pytest.raises(ValueError, match="reset_mask must be 2 booleans"):
        vector.reset(options={"reset_mask": np.array([1, 0])})
    with pytest.raises(ValueError, match="3 seeds for 2 environments"):
        vector.reset(seed=[1, 2, 3])
    vector.reset(seed=0)
    with pytest.raises(ValueError, match="whole numbers from 0 to 4"):
        vector.step(np.array([0, 5]))


@pytest.mark.parametrize("env_id", [DARK_ROOM, KEY_TO_DOOR, POINT_MAZE])
def test_pictures_need_no_graphics_driver_and_show_the_scene(env_id):
    env = ringrl_envs.make(env_id, render_mode="rgb_array")
    vector = ringrl_envs.make_vector(env_id, 2, render_mode="rgb_array")
    env.reset(seed=0, options={"task_id": 3})
    vector.reset(seed=0, options={"task_id": np.array([3, 4])})
    frame = env.render()
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
    assert frame.shape[2] == 3
    np.testing.assert_array_equal(vector.render()[0], frame)
    assert (vector.render()[1] != frame).any()  # another goal
    if env_id == POINT_MAZE:
        env.step(np.ones(2, np.float32))
    else:
        env.step(1)
    assert (env.render() != frame).any()
    vector.close()


def test_mujocos_renderer_without_a_backend_says_what_to_do(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    env = ringrl_envs.make(POINT_MAZE, render_mode="rgb_array", renderer="mujoco")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="use renderer=top_down"):
        env.render()


def test_importing_needs_no_simulator():
    heavy = "mujoco", "gymnasium_robotics", "minari", "jax", "ringrl"
    code = f"import sys, ringrl_envs; sys.exit(', '.join(set({heavy}) & set(sys.modules)) or 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
