"""Work counted by blocks, compared with the masks themselves and the traced program."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.agents import make_agent
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig, dealing_order
from ringrl.ops.config import Kernel, Layout
from ringrl.ops.masks import Labels, attention_mask
from ringrl.ops.operands import LocalOptions
from ringrl.ops.pieces import piece_count, take_piece
from ringrl.parallel import make_mesh
from ringrl.parallel.mesh import MeshConfig
from ringrl.planning.cluster.targets import Target
from ringrl.planning.compile.step import abstract_batch, abstract_state
from ringrl.planning.model.work import BACKWARD, FORWARD, block_pairs, step_work
from ringrl.planning.plan import Plan
from ringrl.training.config import TrainingConfig
from ringrl.training.step import make_train_step
from ringrl.types import Context

LAYOUTS = list(Layout)


def by_masks(config: AttentionConfig, tokens: int, per_step: int, ring: int, head: int) -> np.ndarray:
    """[device, piece, hop]: pairs of blocks in whose mask anything is true, of labels dealt and cut as a ring does."""
    layout = config.layout if config.strategy.is_sharded else Layout.contiguous
    stretches = ring * head * (2 if layout is Layout.zigzag else 1)
    steps = tokens // per_step
    order = dealing_order(layout, steps + -steps % stretches, ring)
    positions = (order[:, None] * per_step + np.arange(per_step)).reshape(1, ring, -1).astype(np.int32)
    segments = np.where(positions < tokens, 0, -1).astype(np.int32)
    length = positions.shape[-1]
    options = LocalOptions(True, None, 0.0, config.query_block_size, config.key_block_size, Kernel.xla)
    pieces = piece_count(length, options)
    found = np.zeros((ring, pieces, ring), int)
    for source, piece in itertools.product(range(ring), range(pieces)):
        held = Labels(jnp.asarray(positions[:, source]), jnp.asarray(segments[:, source]))
        keys = jax.tree.map(np.asarray, take_piece(held, pieces, jnp.asarray(piece)))
        for device in range(ring):
            queries = Labels(positions[:, device], segments[:, device])
            mask = attention_mask(queries, keys, causal=True, window=None)
            found[device, piece, (device - source) % ring] = blocks_that_see(mask[0], config)
    return found


def blocks_that_see(mask: np.ndarray, config: AttentionConfig) -> int:
    rows, columns = min(config.query_block_size, mask.shape[0]), min(config.key_block_size, mask.shape[1])
    blocks = (
        mask[row : row + rows, column : column + columns]
        for row in range(0, mask.shape[0], rows)
        for column in range(0, mask.shape[1], columns)
    )
    return sum(bool(block.any()) for block in blocks)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("tokens", "per_step", "ring", "head", "blocks"),
    [
        (128, 1, 4, 1, (8, 8)),  # whole blocks
        (128, 1, 4, 1, (4, 16)),
        (250, 1, 3, 1, (7, 5)),  # nothing divides
        (91, 1, 4, 1, (8, 8)),  # padding on the last devices
        (13, 1, 4, 1, (512, 512)),  # blocks longer than what there is
        (248, 4, 4, 1, (8, 8)),  # four tokens a step
        (512, 1, 2, 1, (16, 2)),  # four pieces, not of whole blocks
        (384, 2, 2, 1, (16, 6)),
        (5, 1, 8, 1, (4, 4)),  # devices of padding alone
        (202, 1, 2, 2, (16, 8)),  # hybrid
    ],
)
def test_pairs_are_those_whose_mask_holds_anything(
    layout: Layout, tokens: int, per_step: int, ring: int, head: int, blocks: tuple[int, int]
) -> None:
    config = AttentionConfig("hybrid", layout, query_block_size=blocks[0], key_block_size=blocks[1])
    found = block_pairs(config, tokens, per_step, ring=ring, head=head)
    expected = by_masks(config, tokens, per_step, ring, head)
    np.testing.assert_array_equal(found.pairs, expected)


@pytest.mark.parametrize("strategy", ["blockwise", "ulysses"])
def test_one_device_of_a_ring_sees_the_whole_triangle(strategy: str) -> None:
    config = AttentionConfig(strategy, query_block_size=16, key_block_size=8)
    head = 4 if strategy == "ulysses" else 1
    found = block_pairs(config, 203, head=head)
    np.testing.assert_array_equal(found.pairs, by_masks(config, 203, 1, 1, head))


def test_dense_attention_computes_every_score() -> None:
    assert block_pairs(AttentionConfig("dense"), 77).total == 77**2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_waiting_costs_at_least_what_the_busiest_does(layout: Layout) -> None:
    config = AttentionConfig("ring", layout, query_block_size=4, key_block_size=4)
    found = block_pairs(config, 256, ring=8)
    slowest = sum(max(column) for piece in range(found.pairs.shape[1]) for column in found.pairs[:, piece].T)
    assert found.critical == 16 * slowest
    assert found.total / 8 <= found.busiest <= found.critical
    if layout is Layout.contiguous:
        assert found.critical > 1.7 * found.total / 8  # the last device has nearly all of the work
    else:
        assert found.critical == found.total / 8


def test_five_hundred_devices_are_counted_at_once() -> None:
    """In a fraction of a second, where masks would take days."""
    config = AttentionConfig("ring", "zigzag", query_block_size=1024, key_block_size=1024)
    found = block_pairs(config, 2**25, ring=512)
    assert found.total == pytest.approx(2**50 / 2, rel=1e-4)


def plan_of(strategy: str = "ring", *, tokens: int = 64, per_step: int = 1, chains: int = 1, **changes: Any) -> Plan:
    model = ModelConfig(**{"layers": 3, "width": 32, "heads": 4, "remat": "none", **changes.pop("model", {})})
    plan = Plan(
        Target(topology="cpu:4"),
        tokens,
        model=model,
        attention=AttentionConfig(strategy, query_block_size=8, key_block_size=8),
        mesh=MeshConfig(**changes.pop("mesh", {"ring": 4})),
        training=TrainingConfig(batch_size=chains),
    )
    agent = type(plan.agent)(tokens_per_step=per_step, **changes)
    return Plan(**{**vars(plan), "agent": agent})


@pytest.mark.parametrize("feedforward", ["gelu", "swiglu"])
@pytest.mark.parametrize("per_step", [1, 4])
def test_needed_work_is_what_the_trainer_counts(feedforward: str, per_step: int) -> None:
    """Which leaves out the diagonal's half of each score."""
    model = {"feedforward": feedforward, "feedforward_width": 80, "key_value_heads": 2}
    plan = plan_of(tokens=64 * per_step, per_step=per_step, chains=2, model=model, action_head="gaussian")
    agent = make_agent(plan.agent, plan.model, plan.attention, plan.data.spec, context=Context.chain)
    work = step_work(plan)
    diagonal = 6.0 * plan.chains * plan.tokens * plan.model.width * plan.model.layers
    assert work.needed == agent.train_flops(plan.chains, 64) + diagonal


@pytest.mark.parametrize(
    ("strategy", "mesh", "chains"),
    [("blockwise", {"fsdp": 4}, 4), ("ulysses", {"head": 4}, 1), ("hybrid", {"ring": 2, "head": 2}, 1)],
)
def test_devices_add_up(strategy: str, mesh: dict[str, int], chains: int) -> None:
    work = step_work(plan_of(strategy, mesh=mesh, chains=chains))
    assert work.busiest_attention <= work.critical_attention
    if strategy != "hybrid":  # all alike
        assert work.balance == 1.0
    assert work.attention < work.attention_computed
    assert work.critical_path >= work.computed / work.devices


def traced_products(program: Any, devices: int) -> float:
    """FLOPs of a jaxpr's matrix products, loops multiplied out, of branches the larger, over all devices of a mesh."""
    total = 0.0
    for equation in program.eqns:
        inner = [traced_products(part, devices) for part in inner_programs(equation.params)]
        match equation.primitive.name:
            case "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                shape = equation.invars[0].aval.shape
                total += 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
            case "scan":
                total += equation.params["length"] * sum(inner)
            case "cond":
                total += max(inner)
            case "shard_map":
                total += devices * sum(inner)
            case _:
                total += sum(inner)
    return total


def inner_programs(parameters: dict[str, Any]) -> Iterator[Any]:
    for value in parameters.values():
        for part in value if isinstance(value, tuple) else (value,):
            part = getattr(part, "jaxpr", part)  # a closed one's
            if hasattr(part, "eqns"):
                yield part


@pytest.mark.parametrize(
    "remat", [pytest.param(other, marks=pytest.mark.simulators) for other in ("none", "dots", "attention")] + ["layer"]
)
def test_the_traced_program_computes_as_much(remat: str) -> None:
    """With every pair of blocks, since whether one is masked is found as the program runs."""
    model = {"feedforward": "swiglu", "feedforward_width": 48, "key_value_heads": 2, "feedforward_block_size": 16}
    plan = plan_of(tokens=256, model={"remat": remat, "unroll_layers": False, **model})
    work = step_work(plan)
    agent = make_agent(
        plan.agent, plan.model, plan.attention, plan.data.spec, context=Context.chain, mesh=make_mesh(ring=4)
    )
    step = make_train_step(agent, plan.training)
    traced = step.trace(abstract_state(agent, plan.training), abstract_batch(agent, 1, plan.tokens))
    passes = BACKWARD + FORWARD * (1 if remat in ("none", "attention") else 2)
    features = plan.model.width * plan.model.layers
    data_features = 1 + 24 + 7 + 1 + 1  # of a token, whose gradient nobody asks for
    no_gradient = 2 * plan.tokens * plan.model.width * data_features
    expected = work.matrices + work.matrices_again + features * passes * plan.tokens**2 - no_gradient
    assert traced_products(traced.jaxpr.jaxpr, 4) == expected
