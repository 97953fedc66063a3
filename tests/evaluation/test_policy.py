"""Cached acting equals the full forward pass, whatever the history: trials, ragged ends, full contexts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.agents import AgentConfig, make_agent
from ringrl.evaluation import policy as acting
from ringrl.evaluation.config import WhenFull
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.types import ActionKind, ActionSpec, Context, DataSpec, Normalization

CONTINUOUS = ActionSpec(ActionKind.continuous, 2, (-1.0, -2.0), (1.0, 2.0))
DISCRETE = ActionSpec(ActionKind.discrete, 5)
NORMALIZATION = Normalization(np.array([1.0, 0.0, -1.0], np.float32), np.array([2.0, 1.0, 0.5], np.float32), 2.0, 5.0)


def build(tokens_per_step=1, action=CONTINUOUS, capacity=40, when_full=WhenFull.drop, **options):
    agent = make_agent(
        AgentConfig(tokens_per_step=tokens_per_step, trajectory_embedding=True, max_trajectories=8),
        ModelConfig(layers=2, width=32, heads=4, key_value_heads=2, **options),
        AttentionConfig(),
        DataSpec(3, action, 9),
        context=Context.chain,
    )
    parameters = jax.tree.map(lambda leaf: leaf * 2, agent.init(jax.random.key(0)))
    config = acting.ActingConfig(target_return=3.0, capacity=capacity, sample=False, when_full=when_full)
    return [kind(agent, parameters, NORMALIZATION, config) for kind in (acting.CachedPolicy, acting.RecomputingPolicy)]


def play(policies, *, steps, environments=3, seed=0, check):
    """Drives all policies through one random world: episodes end at random, environments idle at times."""
    random = np.random.default_rng(seed)
    for policy in policies:
        policy.reset(environments, seed)
    timestep = np.zeros(environments, int)
    for step in range(steps):
        observations = random.normal(size=(environments, 3))
        active = random.random(environments) < (1.0 if step < 3 else 0.8)
        actions = [policy.act(observations, active) for policy in policies]
        check(step, active, actions)
        rewards = random.normal(size=environments)
        timestep += active
        finished = active & ((random.random(environments) < 0.25) | (timestep >= 9))
        timestep[finished] = 0
        for policy in policies:
            policy.actions = actions[0]  # the same history for all
            policy.observe(rewards, finished, active)


@pytest.mark.parametrize(
    ("tokens_per_step", "action", "capacity"),
    [
        pytest.param(1, CONTINUOUS, 40, marks=pytest.mark.scale),
        (1, DISCRETE, 12),
        pytest.param(2, CONTINUOUS, 12, marks=pytest.mark.scale),
        pytest.param(2, DISCRETE, 40, marks=pytest.mark.scale),
        pytest.param(4, DISCRETE, 12, marks=pytest.mark.scale),
        pytest.param(4, CONTINUOUS, 40, marks=pytest.mark.scale),
    ],
)
def test_cached_acting_equals_the_full_forward_pass(tokens_per_step, action, capacity, monkeypatch):
    monkeypatch.setattr(acting, "SMALLEST_CACHE", 16)
    monkeypatch.setattr(acting, "REBUILD_TOKENS", 8)
    cached, recomputing = build(tokens_per_step, action, capacity)
    compared = 0

    def check(step, active, actions):
        nonlocal compared
        outputs = [np.asarray(policy.outputs)[active] for policy in (cached, recomputing)]
        np.testing.assert_allclose(*outputs, atol=1e-5, rtol=0)
        compared += active.sum()

    play([cached, recomputing], steps=45, check=check)
    assert compared > 100
    assert np.abs(recomputing.outputs).max() > 0.01  # or the comparison would say nothing
    if capacity == 12:
        assert cached.history.lengths.max() <= 12


def test_a_cache_step_takes_a_constant_number_of_tokens():
    cached, _ = build(tokens_per_step=4)
    cached.reset(2, 0)
    chain = cached.history.recent(2)
    shape = jax.eval_shape(
        lambda parameters, chain, cache: cached.agent._bind(parameters).embedding(chain), cached.parameters, chain, 0
    )
    assert shape.shape[1] == 8  # two steps are embedded, of which four tokens are new


def test_stopping_when_full_leaves_room_for_the_longest_trial():
    cached, _ = build(capacity=20, when_full=WhenFull.stop)
    cached.reset(2, 0)
    active = np.array([True, False])
    for _ in range(11):
        assert not cached.full.any()
        cached.act(np.zeros((2, 3)), active)
        cached.observe(np.zeros(2), np.zeros(2, bool), active)
    cached.act(np.zeros((2, 3)), active)
    assert cached.full.tolist() == [True, False]


def test_a_dimension_with_one_action_is_remembered_as_data_show_it():
    """As 0: what an agent makes of such a dimension is not done, and was never in its data."""
    policy, _ = build(action=ActionSpec(ActionKind.continuous, 2, (-1.0, -1.0), (1.0, 1.0)))
    center, half = np.array([0.5, 3.0], np.float32), np.array([0.0, 2.0], np.float32)
    policy.normalization = dataclasses.replace(NORMALIZATION, action_center=center, action_half=half)
    policy.reset(3, seed=0)
    everywhere = np.ones(3, bool)
    taken = policy.act(np.random.default_rng(0).normal(size=(3, 3)), everywhere)
    policy.observe(np.zeros(3), ~everywhere, everywhere)
    chosen = np.asarray(policy.agent.head.mode(jnp.asarray(policy.outputs)))
    assert (chosen != 0).all(), "else the test shows nothing"
    np.testing.assert_array_equal(taken[:, 0], 0.5)
    np.testing.assert_array_equal(policy.history.actions[:, 0, 0], 0.0)
    np.testing.assert_allclose(policy.history.actions[:, 0, 1], chosen[:, 1], rtol=1e-5)


def test_sampling_is_reproducible_and_follows_the_seed():
    cached, _ = build()
    sampling = acting.ActingConfig(target_return=3.0, capacity=40)
    policy = acting.CachedPolicy(cached.agent, cached.parameters, NORMALIZATION, sampling)
    runs = []
    for seed in (0, 0, 1):
        policy.reset(64, seed)
        runs.append(policy.act(np.zeros((64, 3)), np.ones(64, bool)))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


def test_the_window_of_a_trial_slides_and_ends_with_it():
    spec = DataSpec(1, DISCRETE, 9)
    agent = make_agent(AgentConfig(name="dt"), ModelConfig(), AttentionConfig(), spec, context=Context.trial)
    policy = acting.make_policy(
        agent,
        agent.init(jax.random.key(0)),
        Normalization(np.zeros(1, np.float32), np.ones(1, np.float32)),
        acting.ActingConfig(target_return=1.0, capacity=3),
    )
    assert isinstance(policy, acting.RecomputingPolicy)
    policy.reset(1, 0)
    active = np.ones(1, bool)
    for step in range(5):
        policy.act(np.full((1, 1), step), active)
        policy.observe(np.full(1, 0.25), np.array([False]), active)
    chain = policy.history.chain()
    assert chain.observations[0, :, 0].tolist() == [2, 3, 4]
    assert chain.timesteps[0].tolist() == [2, 3, 4]
    assert chain.positions[0].tolist() == [0, 1, 2]
    assert chain.return_to_go[0].tolist() == [0.5, 0.25, 0.0]
    assert chain.previous_mask[0].tolist() == [0, 1, 1]
    policy.act(np.full((1, 1), 5), active)
    policy.observe(np.zeros(1), np.array([True]), active)
    assert policy.history.lengths.tolist() == [0]


def test_completion_marks_the_trial_that_reached_the_target():
    cached, _ = build()
    cached.reset(2, 0)
    active = np.ones(2, bool)
    for rewards, finished in (([1.0, 1.0], False), ([2.0, 1.0], True), ([3.0, 0.0], True)):
        cached.act(np.zeros((2, 3)), active)
        cached.observe(np.array(rewards), np.full(2, finished), active)
    chain = cached.history.chain()
    assert chain.completion[:, :3].tolist() == [[0, 1, 1], [0, 0, 0]]
    assert chain.previous_completion[:, :3].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert chain.trajectories[0, :3].tolist() == [0, 0, 1]
    assert chain.return_to_go[0, :3].tolist() == pytest.approx([0.6, 0.4, 0.6])
    assert jnp.all(chain.segment_ids[:, :3] == 0)
    assert (chain.segment_ids[:, 3:] == -1).all()
