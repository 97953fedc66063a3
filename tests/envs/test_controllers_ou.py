"""Ornstein-Uhlenbeck noise: the process as written, in any continuous action space."""

import numpy as np
import pytest
import ringrl_envs
from gymnasium import spaces
from ringrl_envs.controllers import OrnsteinUhlenbeckController

ALL = np.ones(512, bool)
NOTHING = np.zeros((512, 1))


def actions_of(space, steps, **kwargs):
    controller = OrnsteinUhlenbeckController(space, len(ALL), **kwargs)
    rng = np.random.default_rng(0)
    controller.reset(ALL, rng)
    return np.stack([controller.act(NOTHING, rng) for _ in range(steps)])


def test_it_is_stationary_from_the_first_step_and_forgets_at_theta():
    theta, sigma = 0.3, 0.05
    actions = actions_of(spaces.Box(-1.0, 1.0, (3,), np.float64), 40, theta=theta, sigma=sigma)
    deviation = sigma / np.sqrt(1 - (1 - theta) ** 2)
    assert abs(actions.mean()) < 0.1 * deviation
    for step in (0, 39):
        assert actions[step].std() == pytest.approx(deviation, rel=0.06)
    for lag in (1, 3):
        correlation = (actions[lag:] * actions[:-lag]).mean() / actions.var()
        assert correlation == pytest.approx((1 - theta) ** lag, abs=0.03)


def test_actions_fill_the_bounds_and_never_leave_them():
    low, high = np.array([2.0, -np.inf, -0.1], np.float32), np.array([10.0, np.inf, 0.3], np.float32)
    actions = actions_of(spaces.Box(low, high), 100)
    assert actions.dtype == np.float32
    least, most = np.array([[2.0, -1.0, -0.1], [10.0, 1.0, 0.3]], np.float32)
    np.testing.assert_array_equal(actions.min(axis=(0, 1)), least)
    np.testing.assert_array_equal(actions.max(axis=(0, 1)), most)
    np.testing.assert_allclose((actions.mean(axis=(0, 1)) - least) / (most - least), 0.5, atol=0.02)


def test_only_episodes_that_begin_start_anew():
    controller = OrnsteinUhlenbeckController(spaces.Box(-1.0, 1.0, (2,)), 3)
    rng = np.random.default_rng(0)
    controller.reset(np.ones(3, bool), rng)
    before = controller.state.copy()
    controller.reset(np.array([False, True, False]), rng)
    assert (controller.state == before).all(axis=1).tolist() == [True, False, True]
    assert controller.labels() == ["ou"] * 3


@pytest.mark.parametrize(
    ("space", "kwargs", "message"),
    [
        (spaces.Discrete(3), {}, "only continuous Box"),
        (spaces.Box(0, 5, (2,), np.int64), {}, "only continuous Box"),
        (spaces.Box(-1, 1, (2,)), {"theta": 0.0}, "theta=0.0"),
        (spaces.Box(-1, 1, (2,)), {"sigma": np.inf}, "sigma=inf"),
    ],
)
def test_what_it_cannot_do_is_refused(space, kwargs, message):
    with pytest.raises(ValueError, match=message):
        OrnsteinUhlenbeckController(space, 2, **kwargs)


@pytest.mark.parametrize("kind", ["random", "ou"])
@pytest.mark.parametrize("env_id", ["Pendulum-v1", "Hopper-v5", "HalfCheetah-v5", "Walker2d-v5"])
def test_noise_acts_in_any_continuous_environment(env_id, kind):
    vector = ringrl_envs.make_vector(env_id, 2)
    controller = ringrl_envs.make_controller(env_id, vector, kind=kind)
    rng = np.random.default_rng(0)
    observations, _ = vector.reset(seed=0)
    controller.reset(np.ones(2, bool), rng)
    for _ in range(3):
        actions = controller.act(observations, rng)
        assert vector.action_space.contains(actions)
        assert not np.array_equal(actions[0], actions[1])
        observations = vector.step(actions)[0]
    assert controller.labels() == [kind] * 2  # pyright: ignore[reportAttributeAccessIssue]
    vector.close()


def test_discrete_environments_are_told():
    vector = ringrl_envs.make_vector("CartPole-v1", 1)
    with pytest.raises(ValueError, match="only continuous Box"):
        ringrl_envs.make_controller("CartPole-v1", vector, kind="ou")
    vector.close()
