"""The batches of a run, on one device and on a mesh, and contradictory settings."""

from pathlib import Path

import numpy as np
import pytest

from ringrl.agents import AgentConfig, make_agent
from ringrl.data import ChainSampler, EpisodeStore
from ringrl.data.config import ChainConfig
from ringrl.errors import RingRLError
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig, Layout, Strategy, step_order
from ringrl.parallel import make_mesh
from ringrl.runs.batches import make_batches
from ringrl.runs.policy import load_policy
from ringrl.runs.record import describe_run
from ringrl.training.config import TrainingConfig

TRAINING = TrainingConfig(steps=3, batch_size=2, loader_threads=0)


@pytest.fixture
def sampler() -> ChainSampler:
    random = np.random.default_rng(0)
    episodes = [
        {"observations": random.normal(size=(4, 3)), "actions": random.normal(size=(4, 2)), "rewards": np.ones(4)}
        for _ in range(5)
    ]
    return ChainSampler(EpisodeStore.from_episodes(episodes), ChainConfig(trajectories=2))


def agent_for(sampler: ChainSampler, attention: AttentionConfig | None = None, **options):
    model = ModelConfig(layers=1, width=8, heads=2)
    return make_agent(AgentConfig(), model, attention or AttentionConfig(), sampler.spec, **options)


def test_batches_are_those_of_the_sampler_from_any_start(sampler: ChainSampler) -> None:
    batches = make_batches(agent_for(sampler), sampler, TRAINING, seed=4)
    for start in (0, 2):
        found = list(batches(start))
        assert len(found) == 3 - start
        expected = sampler.batch(4, start, 2)
        np.testing.assert_array_equal(found[0].observations, expected.observations)


def test_on_a_mesh_they_lie_in_the_layout_of_the_agent(sampler: ChainSampler) -> None:
    mesh = make_mesh(ring=2)
    attention = AttentionConfig(Strategy.ring, Layout.zigzag)
    [*_, last] = make_batches(agent_for(sampler, attention, mesh=mesh), sampler, TRAINING)(0)
    order = step_order(Strategy.ring, Layout.zigzag, sampler.steps, mesh)
    np.testing.assert_array_equal(last.positions, np.broadcast_to(order, (2, len(order))))
    assert {shard.data.shape[1] for shard in last.observations.addressable_shards} == {len(order) // 2}


def test_settings_that_contradict_each_other_are_refused(sampler: ChainSampler) -> None:
    trial = agent_for(sampler, context="trial")
    narrow = agent_for(sampler, compute_dtype="bfloat16")
    for function in (make_batches, describe_run):
        with pytest.raises(RingRLError, match=r"chain.context=chain of the sampler, but .* context=trial: give"):
            function(trial, sampler, TRAINING)
        with pytest.raises(RingRLError, match=r"training.precision=float32, but the agent computes in bfloat16: give"):
            function(narrow, sampler, TRAINING)
    make_batches(narrow, sampler, TrainingConfig(batch_size=2, precision="bfloat16"))  # type: ignore[arg-type]


def test_a_record_tells_the_mesh(sampler: ChainSampler) -> None:
    agent = agent_for(sampler, AttentionConfig(Strategy.ring), mesh=make_mesh(ring=2))
    record = describe_run(agent, sampler, TRAINING, seed=3)
    assert record["config"]["mesh"]["ring"] == 2
    assert record["config"]["seed"] == 3
    assert record["environment"] == {"id": "", "kwargs": {}}
    assert record["normalization"] == sampler.normalization.to_json()


def test_a_folder_without_a_checkpoint_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RingRLError, match=r"No checkpoint in .* give a run folder"):
        load_policy(tmp_path)
