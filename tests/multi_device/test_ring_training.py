"""Several optimizer steps over a mesh, with dropout: the same losses as on one device."""

import dataclasses

import jax
import numpy as np
import pytest
from random_chains import make_random_chain

from ringrl.agents import AgentConfig, make_agent
from ringrl.data.reorder import reorder_chain
from ringrl.nn import ModelConfig, Remat
from ringrl.ops import AttentionConfig, step_order
from ringrl.parallel import make_mesh
from ringrl.training.config import OptimizerConfig, TrainingConfig
from ringrl.training.state import create_state
from ringrl.training.step import make_train_step
from ringrl.types import ActionKind, ActionSpec, Chain, Context, DataSpec

CHAINS, STEPS, OBSERVATIONS, ACTIONS = 2, 20, 3, 2
SPEC = DataSpec(OBSERVATIONS, ActionSpec(ActionKind.continuous, ACTIONS, (-1.0,) * ACTIONS, (1.0,) * ACTIONS), 10)


def make_batch(seed: int) -> Chain:
    """Chains of five trajectories of four steps, the last steps of one padded."""
    order = np.broadcast_to(np.arange(STEPS, dtype=np.int32), (CHAINS, STEPS))
    segments = np.where(order < np.asarray([[STEPS], [STEPS - 3]]), 0, -1)
    return make_random_chain(np.random.default_rng(seed), segments, segments >= 0, OBSERVATIONS, ACTIONS)


def losses(attention: AttentionConfig, mesh: jax.sharding.Mesh | None, steps: int = 4) -> list[float]:
    agent = make_agent(
        AgentConfig(tokens_per_step=4),
        ModelConfig(
            layers=2,
            width=32,
            heads=4,
            attention_dropout=0.1,
            residual_dropout=0.1,
            remat=Remat.layer,
            feedforward_block_size=16,
            unroll_layers=False,
        ),
        attention,
        SPEC,
        context=Context.chain,
        mesh=mesh,
    )
    training = TrainingConfig(steps=steps, batch_size=CHAINS, optimizer=OptimizerConfig(learning_rate=3e-3))
    state, step = create_state(agent, training, 0), make_train_step(agent, training)
    found = []
    order = np.arange(STEPS)
    if mesh is not None and attention.strategy.is_sharded:
        order = step_order(attention.strategy, attention.layout, STEPS, mesh)
    for index in range(steps):
        state, metrics = step(state, reorder_chain(make_batch(index), order))
        found.append(float(metrics["loss"]))
    return found


@pytest.fixture(scope="module")
def on_one_device() -> list[float]:
    return losses(AttentionConfig("blockwise", query_block_size=16, key_block_size=16), None)


@pytest.mark.scale
@pytest.mark.parametrize(
    ("strategy", "layout", "sizes"),
    [
        ("ring", "zigzag", {"ring": 8}),
        ("ring", "striped", {"fsdp": 2, "ring": 4}),
        ("ulysses", "contiguous", {"head": 4}),
        ("hybrid", "zigzag", {"data": 2, "ring": 2, "head": 2}),
        ("blockwise", "contiguous", {"data": 2}),
    ],
)
def test_losses_are_those_of_one_device(on_one_device, strategy: str, layout: str, sizes: dict[str, int]) -> None:
    config = dataclasses.replace(AttentionConfig(strategy, layout), query_block_size=16, key_block_size=16)
    found = losses(config, make_mesh(**sizes))
    np.testing.assert_allclose(found, on_one_device, atol=1e-5)
    assert len(set(found)) == len(found)
