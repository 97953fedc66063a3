"""The kitchen's arm: joint velocities that respect limits, and tasks that get done."""

import numpy as np
import pytest
import ringrl_envs
from ringrl_envs.controllers.kitchen import SITES_AND_PLACES, resolved_rates, turned

pytestmark = pytest.mark.simulators

KITCHEN = "FrankaKitchen-v1"
LIMITS = np.tile([-1.0, 1.0], (7, 1))


def completed(kind, quality, tasks, count):
    vector = ringrl_envs.make_vector(KITCHEN, count, tasks_to_complete=list(tasks))
    controller = ringrl_envs.make_controller(KITCHEN, vector, kind=kind, quality=quality)
    episodes = ringrl_envs.collect_episodes(vector, [(kind, 1.0, controller)], total_episodes=count, seed=1)
    vector.close()
    return [episode.rewards.sum() for episode in episodes], [len(episode.rewards) for episode in episodes]


def test_joints_give_the_velocity_asked_for_without_those_at_their_limits():
    rng = np.random.default_rng(0)
    columns = np.concatenate([np.ones((7, 1)), rng.normal(size=(7, 6))], axis=1)
    jacobian, velocity = np.linalg.qr(columns)[0][:, 1:].T, rng.normal(size=6)  # all joints alike can stand in
    free = resolved_rates(jacobian, velocity, np.zeros(7), np.zeros(7), LIMITS)
    np.testing.assert_allclose(jacobian @ free, velocity, atol=0.05)
    at_limit = np.where(np.arange(7) == 2, np.sign(free), 0.0)
    held = resolved_rates(jacobian, velocity, np.zeros(7), at_limit, LIMITS)
    assert held[2] == 0.0
    np.testing.assert_allclose(jacobian @ held, velocity, atol=0.1)


def test_posture_moves_only_what_the_hand_leaves_free():
    jacobian = np.eye(6, 7)
    speeds = resolved_rates(jacobian, np.zeros(6), np.ones(7), np.zeros(7), LIMITS)
    np.testing.assert_allclose(speeds, [0, 0, 0, 0, 0, 0, 1], atol=0.01)


def test_a_twist_turns_about_the_hands_own_direction():
    np.testing.assert_allclose(turned(np.eye(3), np.pi / 2) @ [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(turned(np.eye(3), 0.7) @ [0.0, 1.0, 0.0], [0.0, 1.0, 0.0])


def test_every_scripted_task_gets_done_and_quality_grades_them():
    best, lengths = completed("scripted", 1.0, SITES_AND_PLACES, 1)
    assert best == [6.0]
    assert lengths[0] < 280  # it ends when all are done
    graded, _ = completed("scripted", 0.3, SITES_AND_PLACES, 2)
    assert max(graded) < 6.0
    assert completed("random", None, SITES_AND_PLACES, 2)[0] == [0.0, 0.0]
