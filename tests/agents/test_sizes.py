"""Agents check their contexts, models have the sizes in their names, and FLOPs match the compiler's count."""

from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

from ringrl.agents import AgentConfig, make_agent
from ringrl.errors import RingRLError
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.types import ActionKind, ActionSpec, Context, DataSpec

MODELS = Path(__file__).resolve().parents[2] / "conf" / "model"


@pytest.mark.parametrize(
    ("name", "context", "fitting"),
    [
        ("at", "step", "chain or trial"),
        ("dt", "chain", "trial"),
        ("dt", "step", "trial"),
        ("bc", "chain", "step"),
        ("bc10", "trial", "step"),
    ],
)
def test_a_context_that_does_not_fit_is_refused(tools, name, context, fitting):
    with pytest.raises(RingRLError, match=rf"^chain\.context={context} does not fit agent\.name={name}: use {fitting}"):
        tools.agent(Context(context), name=name)


def test_an_unknown_context_is_refused(tools):
    with pytest.raises(RingRLError, match=r"^chain\.context=trail is unknown: choose chain, trial, step"):
        tools.agent("trail")


def test_behavior_cloning_has_one_token_and_no_embedding_of_time(tools):
    agent = tools.agent(Context.step, name="bc10", tokens_per_step=4, trajectory_embedding=True)
    assert agent.tokens_per_step == 1
    assert agent.layout.slots == (("observation",),)
    shapes = jax.eval_shape(agent.init, jax.random.key(0))
    assert set(shapes["embedding"]) == {"projections"}


def test_train_flops_are_those_of_the_compiled_step(tools):
    """Dense attention computes the half that causality hides as well, which is added here."""
    layers, width, steps, chains, tokens_per_step = 2, 64, 96, 2, 4
    sizes = {"layers": layers, "width": width, "heads": 2}
    agent = tools.agent(model=sizes, tokens_per_step=tokens_per_step)
    segments = np.zeros((chains, steps), np.int32)
    chain = jax.eval_shape(lambda: tools.as_chain(tools.random_steps(chains, steps), segments, segments))
    parameters = jax.eval_shape(agent.init, jax.random.key(0))
    compiled = tools.jit(jax.grad(lambda *arguments: agent.loss(*arguments)[0])).lower(parameters, chain).compile()
    tokens = steps * tokens_per_step
    hidden_half = 3 * chains * layers * 2 * tokens**2 * width
    expected = agent.train_flops(chains, steps) + hidden_half
    # The compiler counts exponentials, norms and the like too, which model FLOPs leave out.
    assert 0.97 < compiled.cost_analysis()["flops"] / expected < 1.25


def test_train_flops_by_hand(tools):
    """One layer, width 16: 12 M^2 a token, the step's embedding and outputs, and attention counted once."""
    agent = tools.agent(tokens_per_step=2)
    embedding = (1 + 3) * 16 + (2 + 1 + 1) * 16  # return to go and observation; action, reward and completion
    outputs = 16 * 2 * 5
    per_chain = 6 * (12 * 16**2 * 20 + (embedding + outputs) * 10) + 3 * 2 * 20**2 * 16
    assert agent.train_flops(3, 10) == 3 * per_chain


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("tiny", 0.09e6, 0.12e6),
        ("small", 4e6, 6e6),
        ("at_350m", 0.3e9, 0.42e9),
        ("3b", 2.7e9, 3.6e9),
        ("7b", 6.3e9, 7.2e9),
        ("13b", 12.3e9, 13.5e9),
        ("30b", 29e9, 33.5e9),
        ("65b", 62e9, 67e9),
    ],
)
def test_models_are_as_large_as_their_names(name, low, high):
    """Counted from shapes; nothing is allocated. LLaMA's counts include 32,000 words, which no agent has."""
    config = ModelConfig(**yaml.safe_load((MODELS / f"{name}.yaml").read_text()))
    spec = DataSpec(4, ActionSpec(ActionKind.continuous, 2, (-1.0, -1.0), (1.0, 1.0)), 20)
    agent = make_agent(AgentConfig(), config, AttentionConfig(), spec, context=Context.chain)
    shapes = jax.eval_shape(agent.init, jax.random.key(0))
    assert low < sum(leaf.size for leaf in jax.tree.leaves(shapes)) < high
