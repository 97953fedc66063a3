"""The compiled training step: communication between devices, donation, and the sharding of results.

Read from the program of a small agent, whose sizes differ, so that a shape tells what an array is.
"""

import functools
from typing import Any, NamedTuple

import jax
import pytest

from ringrl.agents import SequenceAgent
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.parallel import make_mesh
from ringrl.parallel.sharding import bytes_per_device, parameter_specs, split_axes
from ringrl.planning.compile.step import abstract_state, compile_step, synthetic_agent
from ringrl.planning.hlo.collectives import Collective, Kind, find_collectives, sum_bytes_sent
from ringrl.planning.hlo.parser import ArrayType, parse
from ringrl.planning.model.traffic import estimate_traffic
from ringrl.training.config import TrainingConfig
from ringrl.types import ActionKind, ActionSpec, DataSpec

LAYERS, WIDTH, HEADS, TOKENS = 2, 16, 4, 384  # of each chain
SPEC = DataSpec(9, ActionSpec(ActionKind.continuous, 2, (-1.0,) * 2, (1.0,) * 2), 24)
MODEL = ModelConfig(
    layers=LAYERS, width=WIDTH, heads=HEADS, remat="layer", feedforward_block_size=8, unroll_layers=False
)
QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time
MESHES = {
    "fsdp and ring": ("ring", {"fsdp": 2, "ring": 4}),
    "hybrid": ("hybrid", {"data": 2, "ring": 2, "head": 2}),
    "ring": ("ring", {"ring": 8}),
    "ulysses": ("ulysses", {"fsdp": 2, "head": 4}),
    "fsdp": ("blockwise", {"fsdp": 8}),
}
EVERY_DAY = ("fsdp and ring",)


class Program(NamedTuple):
    """A compiled step, and what it was compiled from."""

    agent: SequenceAgent
    compiled: Any
    chains: int
    collectives: list[Collective]

    @property
    def parameters(self) -> list[tuple[tuple[int, ...], tuple[int, ...], bool]]:
        """Of each parameter: its whole shape, its part's, and whether it is split; of layers, that of all of them."""
        mesh = self.agent.mesh
        shapes = jax.eval_shape(self.agent.init, jax.random.key(0))
        specs = parameter_specs(shapes, mesh)
        return [
            (leaf.shape, jax.sharding.NamedSharding(mesh, spec).shard_shape(leaf.shape), bool(split_axes(spec)))
            for leaf, spec in zip(jax.tree.leaves(shapes), jax.tree.leaves(specs), strict=True)
        ]

    def of_kind(self, kind: Kind) -> list[Collective]:
        return [one for one in self.collectives if one.kind is kind]


@functools.cache
def program(name: str) -> Program:
    strategy, sizes = MESHES[name]
    attention = AttentionConfig(strategy, query_block_size=16, key_block_size=16)
    agent = synthetic_agent(MODEL, attention, make_mesh(**sizes), loss_block_size=8, spec=SPEC)
    chains = sizes.get("data", 1) * sizes.get("fsdp", 1)
    compiled = compile_step(agent, TrainingConfig(), chains, TOKENS, QUICK)
    return Program(agent, compiled, chains, find_collectives(parse(compiled.as_text())))


def of_one_layer(shapes: set[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """And of what is no layer's."""
    return {shape[1:] if shape[0] == LAYERS and len(shape) > 2 else shape for shape in shapes}


@pytest.fixture(params=[pytest.param(name, marks=[] if name in EVERY_DAY else pytest.mark.scale) for name in MESHES])
def step(request: pytest.FixtureRequest) -> Program:
    return program(request.param)


def test_nothing_travels_but_what_is_meant_to(step: Program) -> None:
    """No array of all tokens, and none but parameters made whole; each kind of collective where it is expected."""
    mesh = step.agent.mesh.shape
    strategy = step.agent.attention_config.strategy
    whole = of_one_layer({whole for whole, _, split in step.parameters if split})
    parts = of_one_layer({part for _, part, split in step.parameters if split})
    labels = ArrayType("s32", (1, TOKENS // mesh["ring"]))  # of the tokens whose heads a device has, of its chain
    for one in step.of_kind(Kind.permute):
        assert "/attention/" in one.scope, one
        assert "/hop/" in one.scope or "/home/" in one.scope, one
    for one in step.of_kind(Kind.all_gather):
        for result in one.results:
            exchanged = strategy in ("ulysses", "hybrid") and "/attention/" in one.scope and result == labels
            assert exchanged or (result.dtype == "f32" and result.shape in whole), one
    for one in step.of_kind(Kind.reduce_scatter):
        assert all(result.dtype == "f32" and result.shape in parts for result in one.results), one
    for one in step.of_kind(Kind.all_to_all):
        assert strategy in ("ulysses", "hybrid"), one
        assert "/attention/all_to_all" in one.scope, one
    small = {(), *(shape for shape, _, split in step.parameters if not split)}
    if mesh["data"] > 1:
        small |= {part for _, part, _ in step.parameters}
    for one in step.of_kind(Kind.all_reduce):
        assert all(result.shape in small for result in one.results), one


def test_every_expected_kind_is_there(step: Program) -> None:
    """So that the test above has something to read."""
    strategy, sizes = step.agent.attention_config.strategy, step.agent.mesh.shape
    expected = {Kind.all_gather, Kind.reduce_scatter, Kind.all_reduce}
    expected |= {Kind.permute} if strategy in ("ring", "hybrid") and sizes["ring"] > 1 else set()
    expected |= {Kind.all_to_all} if strategy in ("ulysses", "hybrid") else set()
    assert {one.kind for one in step.collectives} == expected


def test_bytes_are_those_on_paper(step: Program) -> None:
    """To the byte: a CPU's compiler adds nothing in float32 and combines only what it does not change."""
    assert sum_bytes_sent(step.collectives) == pytest.approx(
        estimate_traffic(step.agent, step.chains, TOKENS), rel=1e-12
    )


def test_the_state_is_donated_and_stays_where_it_lies(step: Program) -> None:
    state = abstract_state(step.agent, TrainingConfig())
    assert step.compiled.memory_analysis().alias_size_in_bytes == bytes_per_device(state, step.agent.mesh)
    found, metrics = step.compiled.output_shardings
    for leaf, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(found), strict=True):
        assert sharding.is_equivalent_to(leaf.sharding, len(leaf.shape))
    assert all(sharding.is_fully_replicated for sharding in jax.tree.leaves(metrics))
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
