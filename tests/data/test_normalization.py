import numpy as np
import pytest

from ringrl.data import EpisodeStoreWriter, fit_normalization
from ringrl.types import ActionKind, ActionSpec

ACTION = ActionSpec(ActionKind.discrete, 2)


def build(path, observations, rewards):
    with EpisodeStoreWriter(path, observations[0].shape[1], ACTION) as writer:
        for observation, reward in zip(observations, rewards, strict=True):
            writer.append(observation, np.zeros(len(reward), int), reward)
        return writer.finish()


def test_observations_become_standard(tmp_path):
    rng = np.random.default_rng(0)
    # A large offset, where a naive sum of squares loses the deviation; a constant; small units.
    observations = [
        np.stack([rng.normal(1e4, 2, n), rng.normal(0, 0.1, n), np.full(n, 3.0), rng.normal(0, 1e-4, n)], 1)
        for n in (300, 500, 90_000)
    ]
    store = build(tmp_path / "store", observations, [np.ones(len(o)) for o in observations])
    scale = fit_normalization(store)
    everything = np.concatenate(observations).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(scale.observation_mean, everything.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scale.observation_std[[0, 1, 3]], everything.std(0)[[0, 1, 3]], rtol=1e-5)
    assert scale.observation_std[2] == 3, "a constant is divided by its size"
    assert scale.observation_mean.dtype == scale.observation_std.dtype == np.float32


def test_observations_may_be_left_alone(tmp_path):
    store = build(tmp_path / "store", [np.full((3, 2), 5.0)], [np.ones(3)])
    scale = fit_normalization(store, normalize_observations=False)
    np.testing.assert_array_equal(scale.observations(store.observations), store.observations)


@pytest.mark.parametrize(
    ("rewards", "reward_scale", "return_scale"),
    [
        ([[0, 0, 1], [0, 0, 0]], 1.0, 1.0),
        ([[3, 3, -3], [-3, -3, -3]], 3.0, 9.0),
        ([[0, 0, 0], [0, 0, 0]], 1.0, 1.0),
        ([[0.01, 0, 0], [0.01, 0.01, 0]], 0.01, 0.02),
    ],
)
def test_rewards_and_returns_become_of_order_one(tmp_path, rewards, reward_scale, return_scale):
    store = build(tmp_path / "store", [np.zeros((3, 1))] * 2, np.array(rewards, float))
    scale = fit_normalization(store)
    assert scale.reward_scale == pytest.approx(reward_scale, rel=1e-6)
    assert scale.return_scale == pytest.approx(return_scale, rel=1e-6)


def test_a_view_has_its_own_scales(make_store):
    store = make_store()
    view = store.select(np.array([3]))
    rows = view.observations[view.starts[0] : view.starts[0] + view.lengths[0]]
    np.testing.assert_allclose(fit_normalization(view).observation_mean, rows.mean(0), rtol=1e-5, atol=1e-6)
