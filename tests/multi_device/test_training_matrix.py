"""One training step on eight devices, in every way that there is, against the dense step on one device."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from covering import covering_set
from random_chains import make_random_chain

from ringrl.agents import AgentConfig, SequenceAgent, make_agent
from ringrl.data.reorder import reorder_chain
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig, Strategy, step_order
from ringrl.parallel import make_mesh
from ringrl.parallel.sharding import batch_sharding, parameter_shardings
from ringrl.training.gradients import loss_and_gradients
from ringrl.types import ActionKind, ActionSpec, Chain, Context, DataSpec

CHAINS, STEPS, OBSERVATIONS, ACTIONS = 8, 20, 3, 2
SPEC = DataSpec(OBSERVATIONS, ActionSpec(ActionKind.continuous, ACTIONS, (-1.0,) * ACTIONS, (1.0,) * ACTIONS), 10)
QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time
WHERE = (
    ("blockwise", {"data": 8}),
    ("blockwise", {"fsdp": 8}),
    ("blockwise", {"data": 2, "fsdp": 4}),
    ("ring", {"ring": 8}),
    ("ring", {"fsdp": 2, "ring": 4}),
    ("ring", {"data": 2, "ring": 2, "head": 2}),
    ("ulysses", {"head": 4, "data": 2}),
    ("ulysses", {"ring": 2, "head": 2, "fsdp": 2}),
    ("hybrid", {"ring": 4, "head": 2}),
    ("hybrid", {"data": 2, "ring": 2, "head": 2}),
)
CHOICES = {
    "where": WHERE,
    "layout": ("contiguous", "striped", "zigzag"),
    "agent": ("at", "dt"),
    "double": (False, True),
    "pieces": (1, 2),
    "model": ("plain", "dropout", "long"),
}
MODELS = {
    "plain": {},
    "dropout": {"attention_dropout": 0.2, "residual_dropout": 0.2, "remat": "attention"},
    "long": {"remat": "layer", "feedforward_block_size": 8, "feedforward": "swiglu", "key_value_heads": 2},
}


def make_batch(context: Context) -> Chain:
    """Chains of five trajectories of four steps; one is half padding, and all are supervised unevenly."""
    generator = np.random.default_rng(0)
    order = np.broadcast_to(np.arange(STEPS, dtype=np.int32), (CHAINS, STEPS))
    known = order < np.asarray([STEPS, STEPS - 3, STEPS // 2, STEPS, 1, STEPS, 7, STEPS])[:, None]
    segments = {Context.chain: np.zeros_like(order), Context.trial: order // 4}[context]
    supervised = known & (generator.normal(size=known.shape) > -0.5)
    return make_random_chain(generator, np.where(known, segments, -1), supervised, OBSERVATIONS, ACTIONS)


def agent_of(name: str, attention: AttentionConfig, mesh, model: str, double: bool) -> SequenceAgent:
    return make_agent(
        AgentConfig(name=name, tokens_per_step=2, loss_block_size=3 if model == "long" else 0),
        ModelConfig(layers=2, width=16, heads=4, unroll_layers=False, **MODELS[model]),
        attention,
        SPEC,
        context=Context.chain if name == "at" else Context.trial,
        compute_dtype=jnp.float64 if double else jnp.float32,
        mesh=mesh,
    )


def step(agent: SequenceAgent, batch: Chain, double: bool, pieces: int):
    """Loss and gradients, from the same parameters whatever the agent."""
    single = agent_of(agent.name, AttentionConfig(), None, "long" if agent.config.loss_block_size else "plain", double)
    shapes = jax.eval_shape(single.init, jax.random.key(0))
    generator = np.random.default_rng(1)
    draw = {True: np.float64, False: np.float32}[double]
    params = jax.tree.map(lambda leaf: (0.3 * generator.normal(size=leaf.shape)).astype(draw), shapes)
    if agent.mesh is not None:
        params = jax.device_put(params, parameter_shardings(params, agent.mesh))
        batch = jax.device_put(batch, batch_sharding(agent.mesh))
    run = jax.jit(functools.partial(loss_and_gradients, agent, pieces=pieces), compiler_options=QUICK)
    loss, metrics, gradients = run(params, batch, jax.random.key(3))
    return loss, metrics["supervised_steps"], gradients


@functools.cache
def expected(name: str, model: str, double: bool):
    agent = agent_of(name, AttentionConfig(), None, model, double)
    return jax.tree.map(np.asarray, step(agent, make_batch(agent.context), double, 1))


def check(where, layout: str, name: str, double: bool, pieces: int, model: str) -> None:
    strategy, sizes = where
    if sizes.get("data", 1) * sizes.get("fsdp", 1) > 4 or model == "dropout":
        pieces = 1  # as many chains as devices; and masks are by a chain's number in its piece
    config = AttentionConfig(strategy, layout, query_block_size=4, key_block_size=4)
    mesh = make_mesh(**sizes)
    with jax.enable_x64(double), jax.numpy_dtype_promotion("standard" if double else "strict"):
        reference = expected(name, model, double)
        agent = agent_of(name, config, mesh, model, double)
        batch = make_batch(agent.context)
        if Strategy(strategy).is_sharded:
            batch = reorder_chain(batch, step_order(config.strategy, config.layout, STEPS, mesh))
        found = step(agent, batch, double, pieces)
        tolerance = 1e-10 if double else 1e-5
        assert abs(found[0] - reference[0]) <= tolerance * abs(reference[0])
        assert found[1] == reference[1]
        for (path, leaf), wanted in zip(
            jax.tree_util.tree_leaves_with_path(found[2]), jax.tree.leaves(reference[2]), strict=True
        ):
            error = np.linalg.norm(np.asarray(leaf) - wanted) / np.linalg.norm(wanted)
            assert error <= tolerance, f"{jax.tree_util.keystr(path)}: {error}"


COVERING = covering_set(CHOICES, sample=200)
GRID = [case for case in itertools.product(*CHOICES.values()) if case not in COVERING]


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param((WHERE[4], "zigzag", "at", True, 2, "long"), marks=pytest.mark.scale),
        pytest.param((WHERE[9], "striped", "dt", False, 1, "dropout"), marks=pytest.mark.scale),
        pytest.param((WHERE[2], "contiguous", "at", False, 1, "plain"), marks=pytest.mark.scale),
    ],
    ids=str,
)
def test_loss_and_gradients_are_those_of_one_device(cell) -> None:
    check(*cell)


@pytest.mark.scale
@pytest.mark.parametrize("cell", COVERING, ids=str)
def test_in_ways_that_meet_each_other(cell) -> None:
    check(*cell)


@pytest.mark.slow
@pytest.mark.parametrize("cell", GRID, ids=str)
def test_in_every_way(cell) -> None:
    check(*cell)
    jax.clear_caches()  # hundreds of programs would use up the memory maps that a process may have
