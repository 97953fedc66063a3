"""The sampler compared with a simple slow implementation, over every flag."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringrl.data import ChainSampler, EpisodeStore, fit_normalization
from ringrl.data.config import ChainConfig, Context, Order, Supervise
from ringrl.errors import RingRLError
from ringrl.types import Chain, Normalization

NO_SCALE = Normalization(np.zeros(3, np.float32), np.ones(3, np.float32))


def slow_chain(store: EpisodeStore, config: ChainConfig, scale: Normalization, episodes, steps, first=0) -> dict:
    """One chain, step by step, following docs/chains.md."""
    order = list(episodes)
    if config.order is Order.ascending:
        order = sorted(order, key=lambda e: store.returns[e])
    elif config.order is Order.descending:
        order = sorted(order, key=lambda e: -store.returns[e])
    best = max(store.returns[e] for e in order)
    zero_action = np.zeros(store.actions.shape[1:], store.actions.dtype)
    rows = []
    for trajectory, episode in enumerate(order):
        begin, length = store.starts[episode], store.lengths[episode]
        target = best if config.relabel else store.returns[episode]
        to_go = target
        for t in range(length):
            reward = store.rewards[begin + t]
            done = t == length - 1 and store.returns[episode] >= target - 1e-6 * max(scale.return_scale, abs(target))
            if first <= t < first + (config.window_steps or length):
                position = len(rows)
                segment = {Context.chain: 0, Context.trial: trajectory, Context.step: position}[config.context]
                seen = bool(rows) and rows[-1]["segment_ids"] == segment
                before = rows[-1] if seen else {"actions": zero_action, "rewards": 0.0, "completion": 0.0}
                rows.append(
                    {
                        "observations": (store.observations[begin + t] - scale.observation_mean)
                        / scale.observation_std,
                        "actions": scaled_action(store.actions[begin + t], scale),
                        "rewards": reward / scale.reward_scale,
                        "return_to_go": to_go / scale.return_scale,
                        "completion": float(done),
                        "previous_actions": before["actions"],
                        "previous_rewards": before["rewards"],
                        "previous_completion": before["completion"],
                        "previous_mask": float(seen),
                        "timesteps": t,
                        "trajectories": trajectory,
                        "positions": position,
                        "segment_ids": segment,
                        "loss_mask": float(config.supervise is Supervise.all or trajectory == len(order) - 1),
                    }
                )
            to_go = to_go - reward
    for position in range(len(rows), steps):
        padding = {name: np.zeros_like(value) for name, value in rows[0].items()}
        rows.append(padding | {"positions": position, "segment_ids": -1})
    assert len(rows) == steps
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def scaled_action(action: np.ndarray, scale: Normalization) -> np.ndarray:
    if scale.action_center is None:
        return action
    return (action - scale.action_center) / scale.action_half


def assert_equals_slow(chain: Chain, slow: list[dict]) -> None:
    for field in dataclasses.fields(Chain):
        got = getattr(chain, field.name)
        expected = np.stack([one[field.name] for one in slow])
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5, err_msg=field.name)
        integers = ("timesteps", "trajectories", "positions", "segment_ids")
        discrete = field.name.endswith("actions") and got.ndim == 2
        assert got.dtype == (np.int32 if field.name in integers or discrete else np.float32), field.name


GRID = list(itertools.product(Order, (True, False), Supervise, Context, (1, 4)))


@pytest.mark.parametrize("discrete", [False, True])
def test_every_flag_equals_the_slow_twin(make_store, discrete):
    store = make_store(discrete=discrete)
    scale = fit_normalization(store, normalize_observations=True)
    rng = np.random.default_rng(0)
    for order, relabel, supervise, context, size in GRID:
        config = ChainConfig(size, order, relabel, supervise, context)
        sampler = ChainSampler(store, config, scale)
        tasks = rng.choice(np.unique(store.task_ids), size=5)
        episodes = np.stack([rng.choice(np.flatnonzero(store.task_ids == task), size, replace=False) for task in tasks])
        slow = [slow_chain(store, config, scale, row, sampler.steps) for row in episodes]
        assert_equals_slow(sampler.assemble(episodes), slow)


@pytest.mark.parametrize("context", Context)
@pytest.mark.parametrize("relabel", [True, False])
@pytest.mark.parametrize("window", [1, 3, 7, 50])
def test_windows_equal_the_slow_twin(make_store, window, relabel, context):
    store = make_store(tasks=1, episodes=12)
    config = ChainConfig(trajectories=1, window_steps=window, relabel=relabel, context=context)
    sampler = ChainSampler(store, config, NO_SCALE)
    assert sampler.steps == min(window, 9)
    episodes = np.repeat(np.arange(12), 3)[:, None]
    first = np.random.default_rng(0).integers(0, store.lengths[episodes])
    slow = [
        slow_chain(store, config, NO_SCALE, row, sampler.steps, first=start[0])
        for row, start in zip(episodes, first, strict=True)
    ]
    assert_equals_slow(sampler.assemble(episodes, first), slow)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), order=st.sampled_from(Order), context=st.sampled_from(Context), relabel=st.booleans())
def test_any_episodes_equal_the_slow_twin(make_store_once, data, order, context, relabel):
    store = make_store_once
    size = data.draw(st.integers(1, 6))
    tasks = data.draw(st.lists(st.sampled_from([10, 11]), min_size=1, max_size=3))
    episodes = np.array(
        [data.draw(st.permutations(list(np.flatnonzero(store.task_ids == task))))[:size] for task in tasks]
    )
    config = ChainConfig(size, order, relabel, Supervise.last, context)
    sampler = ChainSampler(store, config, NO_SCALE)
    slow = [slow_chain(store, config, NO_SCALE, row, sampler.steps) for row in episodes]
    assert_equals_slow(sampler.assemble(episodes), slow)


@pytest.fixture
def make_store_once(make_store):
    return make_store(tasks=2, episodes=7, seed=3)


def test_a_chain_by_hand(tmp_path):
    from ringrl.data import EpisodeStoreWriter
    from ringrl.types import ActionKind, ActionSpec

    with EpisodeStoreWriter(tmp_path / "store", 1, ActionSpec(ActionKind.discrete, 2)) as writer:
        writer.append(np.array([[1.0], [2.0]]), np.array([1, 0]), np.array([0.0, 3.0]))
        writer.append(np.array([[5.0], [6.0], [7.0]]), np.array([1, 1, 0]), np.array([1.0, 0.0, 0.0]))
        store = writer.finish()
    scale = Normalization(np.zeros(1, np.float32), np.ones(1, np.float32), 1.0, 1.0)
    chain = ChainSampler(store, ChainConfig(trajectories=2), scale).assemble(np.array([[0, 1]]))
    np.testing.assert_array_equal(chain.observations[0, :, 0], [5, 6, 7, 1, 2])
    np.testing.assert_array_equal(chain.return_to_go[0], [3, 2, 2, 3, 3])
    np.testing.assert_array_equal(chain.completion[0], [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(chain.previous_rewards[0], [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(chain.previous_actions[0], [0, 1, 1, 0, 1])
    np.testing.assert_array_equal(chain.previous_mask[0], [0, 1, 1, 1, 1])
    np.testing.assert_array_equal(chain.timesteps[0], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(chain.trajectories[0], [0, 0, 0, 1, 1])


@pytest.mark.parametrize("config", [ChainConfig(4), ChainConfig(1, window_steps=4, context=Context.trial)])
def test_a_batch_depends_on_seed_and_index_alone(make_store, config):
    store = make_store()
    one, two = (ChainSampler(store, config, NO_SCALE) for _ in range(2))
    for index in (5, 0, 5):
        two.batch(1, index + 1, 8)
        for field in dataclasses.fields(Chain):
            name = field.name
            np.testing.assert_array_equal(getattr(one.batch(1, index, 8), name), getattr(two.batch(1, index, 8), name))
    stream = {one.batch(seed, index, 8).observations.tobytes() for seed in (1, 2) for index in range(8)}
    assert len(stream) == 16


def test_chains_hold_distinct_episodes_of_one_task_drawn_uniformly(make_store):
    store = make_store(tasks=2, episodes=5).select(np.array([0, 1, 2, 3, 4, 5, 6, 7, 9]))  # 4 of task 10, 5 of task 11
    sampler = ChainSampler(store, ChainConfig(trajectories=3, order=Order.random), NO_SCALE)
    generator = np.random.default_rng(0)
    episodes = sampler._draw_episodes(generator, 20_000)
    assert all(len(set(row)) == 3 for row in episodes[:2000].tolist())
    tasks = store.task_ids[episodes]
    assert (tasks == tasks[:, :1]).all()
    assert np.mean(tasks[:, 0] == 10) == pytest.approx(0.5, abs=0.02)
    for column in range(3):  # every episode is as likely in every place
        share = np.bincount(episodes[:, column], minlength=9) / len(episodes)
        expected = np.where(store.task_ids == 10, 0.5 / 4, 0.5 / 5)
        np.testing.assert_allclose(share, expected, atol=0.012)


def test_all_episodes_of_a_task_can_be_taken(make_store):
    store = make_store(tasks=2, episodes=6)
    sampler = ChainSampler(store, ChainConfig(trajectories=6), NO_SCALE)
    for row in sampler._draw_episodes(np.random.default_rng(1), 20):
        assert sorted(row) in (list(range(0, 12, 2)), list(range(1, 12, 2)))


def test_windows_cover_every_step_and_start_at_the_beginning_most(make_store):
    store = make_store(tasks=1, episodes=8, max_steps=30, seed=5)
    config = ChainConfig(trajectories=1, window_steps=5, context=Context.trial)
    sampler = ChainSampler(store, config, NO_SCALE)
    episodes, first = sampler._draw_windows(np.random.default_rng(0), 60_000)
    lengths = store.lengths[episodes]
    assert (first >= 0).all()
    assert (first + np.minimum(5, lengths) <= lengths).all()
    share = np.bincount(episodes[:, 0], minlength=8) / len(episodes)
    np.testing.assert_allclose(share, store.lengths / store.lengths.sum(), atol=0.01)
    longest = int(np.argmax(store.lengths))
    length = store.lengths[longest]
    assert length > 15
    starts = np.bincount(first[episodes == longest], minlength=length)
    expected = np.zeros(length)
    for u in range(-4, length):
        expected[min(max(u, 0), length - 5)] += 1 / (length + 4)
    np.testing.assert_allclose(starts / starts.sum(), expected, atol=0.015)
    covered = sum(np.pad(starts[: length - 4], (shift, 4 - shift)) for shift in range(5))
    assert covered.min() > 0.85 * covered[10]


def test_steps_are_the_most_a_chain_can_need(make_store):
    store = make_store(tasks=3, episodes=6)
    per_task = [np.sort(store.lengths[store.task_ids == task])[-4:].sum() for task in np.unique(store.task_ids)]
    assert ChainSampler(store, ChainConfig(trajectories=4), NO_SCALE).steps == max(per_task)


def test_more_trajectories_than_episodes_names_the_task(make_store):
    store = make_store(tasks=2, episodes=6).select(np.array([0, 1, 2, 3, 5]))  # 2 of task 10, 3 of task 11
    with pytest.raises(RingRLError, match=r"chain.trajectories=3: task 10 of .* has only 2 episodes") as caught:
        ChainSampler(store, ChainConfig(trajectories=3), NO_SCALE)
    assert "\n" not in str(caught.value)
    ChainSampler(store, ChainConfig(trajectories=2), NO_SCALE)


def test_only_episodes_in_view_are_drawn(make_store):
    store = make_store().keep_top(0.4)
    sampler = ChainSampler(store, ChainConfig(trajectories=2, order=Order.random), NO_SCALE)
    chain = sampler.batch(0, 0, 64)
    allowed = {row.tobytes() for indices in store.iterate_steps() for row in store.observations[indices]}
    drawn = {row.tobytes() for row in chain.observations[chain.segment_ids >= 0]}
    assert drawn == allowed
