"""The ant's gait is the same in four directions, and leads it through mazes."""

import numpy as np
import pytest
import ringrl_envs
from ringrl_envs.controllers.ant_gait import upright, walk, yaw_of
from ringrl_envs.controllers.ant_maze import GAIT

pytestmark = pytest.mark.simulators

UMAZE = "AntMaze_UMaze-v4"


def bodies(count):
    """Plausible observations (count, 27): random joints and speeds, the torso level and facing anywhere."""
    rng = np.random.default_rng(0)
    body = rng.normal(0.0, 0.3, (count, 27))
    half = rng.uniform(0, np.pi, count)
    body[:, 1:5] = np.stack([np.cos(half), np.zeros(count), np.zeros(count), np.sin(half)], axis=1)
    body[:, 16:18] = 0.0
    return body


def episodes_at(kind, quality, count):
    vector = ringrl_envs.make_vector(UMAZE, min(count, 8), continuing_task=False, max_episode_steps=400)
    controller = ringrl_envs.make_controller(UMAZE, vector, kind=kind, quality=quality)
    episodes = ringrl_envs.collect_episodes(vector, [(kind, 1.0, controller)], total_episodes=count, seed=3)
    vector.close()
    return episodes


def test_yaw_and_uprightness_of_known_quaternions():
    turned = np.array([[np.cos(0.2), 0, 0, np.sin(0.2)], [0.0, 1.0, 0.0, 0.0]])  # yaw of 0.4; upside down
    assert yaw_of(turned)[0] == pytest.approx(0.4)
    assert upright(turned).tolist() == pytest.approx([1.0, -1.0])


def test_a_quarter_turn_of_the_bearing_passes_the_gait_on_to_the_next_leg():
    body = bodies(16)
    signs = np.array([1.0, -1.0, -1.0, 1.0])  # of ankles 1 to 4
    passed_on = body.copy()
    for first in (5, 19):
        passed_on[:, first : first + 8 : 2] = np.roll(body[:, first : first + 8 : 2], 1, axis=1)
        ankles = np.roll(signs * body[:, first + 1 : first + 8 : 2], 1, axis=1)
        passed_on[:, first + 1 : first + 8 : 2] = signs * ankles
    phase, bearing = np.linspace(0, 6, 16), np.linspace(-3, 3, 16)
    actions = walk(GAIT, phase, body, bearing, np.ones(16)).reshape(16, 4, 2)
    expected = np.roll(actions, 1, axis=1)  # motors come in the order of legs 4, 1, 2, 3
    expected[..., 1] *= np.array([1, 1, -1, -1]) * np.roll([1, 1, -1, -1], 1)
    turned = walk(GAIT, phase + np.pi, passed_on, bearing + np.pi / 2, np.ones(16)).reshape(16, 4, 2)
    np.testing.assert_allclose(turned, expected, atol=1e-5)
    assert np.abs(actions).max() == 1.0
    assert np.abs(actions).min() < 1.0


def test_without_effort_it_stands():
    body = bodies(4)
    early, late = (walk(GAIT, np.full(4, phase), body, np.full(4, phase), np.zeros(4)) for phase in (0.0, 2.0))
    np.testing.assert_array_equal(early, late)


def test_it_walks_toward_its_goal_and_begins_anew_at_reset():
    vector = ringrl_envs.make_vector(UMAZE, 1)
    controller = ringrl_envs.make_controller(UMAZE, vector, quality=1.0)
    rng = np.random.default_rng(0)

    def walked():
        observations, _ = vector.reset(seed=5, options={"reset_cell": np.array([1, 1]), "goal_cell": np.array([1, 3])})
        controller.reset(np.ones(1, bool), rng)
        start, goal = observations[0, :2], observations[0, 2:4]
        for _ in range(60):
            observations = vector.step(controller.act(observations, rng))[0]
        return np.linalg.norm(goal - start) - np.linalg.norm(goal - observations[0, :2]), observations

    (closer, first), (_, second) = walked(), walked()
    assert closer > 2.0
    np.testing.assert_array_equal(first, second)
    vector.close()


def test_quality_grades_success_in_the_maze():
    success = [
        np.mean([episode.rewards.any() for episode in episodes_at(kind, quality, 8)])
        for kind, quality in (("random", None), ("scripted", 0.3), ("scripted", 1.0))
    ]
    assert success[0] < 0.3
    assert success[0] <= success[1] < success[2]
    assert success[2] > 0.7
