"""dm_control's tasks as gymnasium environments: dm_control's own episodes, and rewards as URLB defines them."""

import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import ringrl_envs
from gymnasium.utils.env_checker import check_env
from ringrl_envs.dmc import build, catalogue
from simulators import needs_dm_control

EVERY_TASK = [
    pytest.param(task, marks=() if task == "walker_run" else pytest.mark.simulators) for task in ringrl_envs.dmc_tasks()
]


def make(task: str) -> gymnasium.Env:
    env = ringrl_envs.make(ringrl_envs.dmc_id(task))
    env.action_space.seed(7)
    return env


def test_importing_and_naming_needs_no_simulator():
    program = (
        "import sys, gymnasium, ringrl_envs\n"
        "assert 'ringrl/dmc_jaco_reach_top_left-v0' in gymnasium.registry\n"
        "ringrl_envs.Relabeller('ringrl/dmc_walker_flip-v0')\n"
        "assert not {'dm_control', 'mujoco'} & set(sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_episode_lengths_and_names():
    assert ringrl_envs.dmc_tasks("walker") == ["walker_stand", "walker_walk", "walker_run", "walker_flip"]
    assert ringrl_envs.dmc_id("point_mass_maze_reach_top_left") == "ringrl/dmc_point_mass_maze_reach_top_left-v0"
    assert len(ringrl_envs.dmc_tasks()) == 24
    limits = {task: gymnasium.spec(ringrl_envs.dmc_id(task)).max_episode_steps for task in ringrl_envs.dmc_tasks()}
    assert {task for task, limit in limits.items() if limit == 250} == set(ringrl_envs.dmc_tasks("jaco"))
    assert set(limits.values()) == {250, 1000}


@needs_dm_control
@pytest.mark.filterwarnings("ignore:.*A Box observation space (minimum|maximum) value")
@pytest.mark.parametrize("task", EVERY_TASK)
def test_gymnasium_check_env_has_nothing_to_say(task):
    check_env(gymnasium.make(ringrl_envs.dmc_id(task)).unwrapped, skip_render_check=True)


@needs_dm_control
@pytest.mark.parametrize("task", [task for task in EVERY_TASK if "maze" not in str(task.values[0])])
def test_episodes_are_dm_controls_own(task):
    from dm_control import manipulation, suite

    domain, name = catalogue.split_task(task)
    if domain == "jaco":
        own = manipulation.load("reach_site_features", seed=5)
    elif (domain, name) in suite.ALL_TASKS:
        own = suite.load(domain, name, task_kwargs={"random": 5})
    else:
        own = suite.load(domain, "walk" if domain == "quadruped" else "run", task_kwargs={"random": 5})
    env, spec = make(task), own.action_spec()
    step, observation = own.reset(), env.reset(seed=5)[0]
    for _ in range(25):
        entries = [value.ravel() for key, value in step.observation.items() if key != "target_position"]
        np.testing.assert_array_equal(observation, np.concatenate(entries).astype(np.float32))
        action = env.action_space.sample()
        observation, reward, *_ = env.step(action)
        step = own.step((spec.maximum + spec.minimum) / 2 + (spec.maximum - spec.minimum) / 2 * action)
        if domain != "jaco" and (domain, name) in suite.ALL_TASKS:
            assert reward == step.reward


def falling(distance: float, margin: float) -> float:
    """1 up to a distance of 0, 0.1 at the margin, a Gaussian between and beyond."""
    return float(0.1 ** (max(distance, 0) / margin) ** 2)


def reward_by_hand(task: str, simulation) -> float:
    """The reward of a task that dm_control does not have, from its definition alone."""
    data = simulation.physics.named.data
    corner = np.array([-1 if "left" in task else 1, 1 if "top" in task else -1])
    if task == "walker_flip":
        standing = falling(1.2 - data.xpos["torso", "z"], 0.6)
        upright = (1 + data.xmat["torso", "zz"]) / 2
        return (3 * standing + upright) / 4 * (5 * np.clip(data.subtree_angmom["torso"][1] / 5, 0, 1) + 1) / 6
    if task.startswith("cheetah"):
        flips, sign = "flip" in task, -1 if task.endswith("backward") else 1
        value = data.subtree_angmom["torso"][1] / 5 if flips else data.sensordata["torso_subtreelinvel"][0] / 10
        return np.clip(sign * value, 0, 1)
    if task.startswith("quadruped"):
        jump = 0.5 + 0.5 * np.clip(data.sensordata["center_of_mass"][2], 0, 1) if "jump" in task else 1
        return (1 + data.xmat["torso", "zz"]) / 2 * jump
    if task.startswith("jaco"):
        hand = data.site_xpos["jaco_arm/jaco_hand/pinchsite"]
        return falling(np.linalg.norm(hand - [*0.09 * corner, 0.001]) - 0.05, 0.05)
    distance = np.linalg.norm(data.geom_xpos["pointmass"] - [*0.15 * corner, 0.01])
    return falling(distance - 0.015, 0.015) * (4 + (1 - np.square(data.ctrl)).mean()) / 5


ADDED = [task for task in ringrl_envs.dmc_tasks() if task.split("_")[0] in ("jaco", "point")] + [
    "cheetah_run_backward", "cheetah_flip", "cheetah_flip_backward", "quadruped_stand", "quadruped_jump", "walker_flip"
]  # fmt: skip


@needs_dm_control
@pytest.mark.parametrize(
    "task",
    [
        pytest.param(task, marks=() if task in ("walker_flip", "quadruped_jump") else pytest.mark.simulators)
        for task in ADDED
    ],
)
def test_rewards_are_urlbs(task):
    env = make(task)
    env.reset(seed=1)
    if task.startswith("point_mass_maze"):
        corner = np.array([-1 if "left" in task else 1, 1 if "top" in task else -1])
        env.unwrapped.set_physics_state(np.array([*0.14 * corner, 0.05, 0.05]))
    rewards = []
    for _ in range(50):
        rewards.append(env.step(env.action_space.sample())[1])
        assert rewards[-1] == pytest.approx(reward_by_hand(task, env.unwrapped.simulation), rel=1e-9, abs=1e-12)
    assert np.ptp(rewards) > 0


@needs_dm_control
def test_the_maze_has_walls_and_starts_in_its_top_left_corner():
    env = make("point_mass_maze_reach_bottom_right")
    for seed in range(20):
        x, y = env.reset(seed=seed)[0][:2]
        assert -0.29 <= x <= -0.15
        assert 0.15 <= y <= 0.29
    env.unwrapped.set_physics_state(np.array([-0.1, 0.05, 0.0, 0.0]))
    for _ in range(200):
        x, y = env.step(np.array([1.0, 0.0], np.float32))[0][:2]
    assert x == pytest.approx(-0.02 - 0.01, abs=5e-3)  # held by the wall that runs along y
    np.testing.assert_allclose(y, 0.05, atol=1e-3)


@needs_dm_control
def test_what_follows_a_state_depends_on_it_and_the_actions_alone():
    first, second = make("walker_walk"), make("walker_walk")
    first.reset(seed=0)
    for _ in range(20):
        first.step(first.action_space.sample())
    second.reset(seed=1)
    state = first.unwrapped.physics_state()
    np.testing.assert_array_equal(first.unwrapped.set_physics_state(state), second.unwrapped.set_physics_state(state))
    for _ in range(20):
        action = first.action_space.sample()
        first.step(action)
        second.step(action)
        np.testing.assert_array_equal(first.unwrapped.physics_state(), second.unwrapped.physics_state())


@needs_dm_control
def test_a_vector_of_them_is_truncated_at_the_time_limit():
    vector = ringrl_envs.make_vector("ringrl/dmc_point_mass_maze_reach_top_right-v0", 2, max_episode_steps=30)
    vector.reset(seed=[3, 4])
    ends = [vector.step(np.zeros((2, 2), np.float32))[2:4] for _ in range(30)]
    assert not np.any([terminations for terminations, _ in ends])
    np.testing.assert_array_equal([truncations for _, truncations in ends], [[False] * 2] * 29 + [[True] * 2])


def test_wrong_names_and_missing_packages_are_one_line(monkeypatch):
    with pytest.raises(
        ValueError, match=r"^Unknown environment 'ringrl/dmc_walker_runs-v0': did you mean ringrl/dmc_w"
    ):
        ringrl_envs.make("ringrl/dmc_walker_runs-v0")
    with pytest.raises(ValueError, match=r"^Unknown dm_control domain 'hopper': one of cartpole, "):
        ringrl_envs.dmc_tasks("hopper")
    with pytest.raises(ValueError, match=r"^Unknown dm_control task 'walker_fly': one of cartpole_balance, "):
        ringrl_envs.dmc_id("walker_fly")
    monkeypatch.setitem(sys.modules, "dm_control", None)
    monkeypatch.delitem(sys.modules, "ringrl_envs.dmc.suite", raising=False)
    line = re.escape(f"): {build.describe_install()}.")
    with pytest.raises(ValueError, match=rf"^dm_control's walker_run cannot be made \(.*{line}$"):
        ringrl_envs.make("ringrl/dmc_walker_run-v0")


def test_what_to_install_depends_on_python():
    """From 3.13 on the extra alone does not bring dm_control; the version that goes with its mujoco is named."""
    assert build.describe_install((3, 12)) == "pip install 'ringrl[dmc]'"
    later = build.describe_install((3, 13))
    assert later.startswith("pip install 'ringrl[dmc]' && pip install --no-deps dm_control==1.0.36 (")
    assert "labmaze, which has no wheel for Python 3.13" in later
    constraints = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    assert f"dm_control=={build.VERSION}" in constraints


@needs_dm_control
def test_no_renderer_and_wrong_states_are_one_line(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    with pytest.raises(ValueError, match=r"^walker_run: render_mode='rgb_array' needs OpenGL \(.*MUJOCO_GL=egl"):
        ringrl_envs.make("ringrl/dmc_walker_run-v0", render_mode="rgb_array")
    env = make("walker_run").unwrapped
    with pytest.raises(ValueError, match=r"^physics has shape \(1, 3\): rows of 18 numbers are needed\.$"):
        env.set_physics_state(np.zeros(3))
