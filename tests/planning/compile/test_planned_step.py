"""A whole training step as compilers schedule it: every hop of the ring across matrix products, its memory in words.

On this machine's CPU, which sends everything at once; and by the compilers of absent TPUs and GPUs, which
`make test-schedules` runs: one that is not installed fails.
"""

from typing import Any

import jax.numpy as jnp
import pytest

from ringrl.nn import ModelConfig
from ringrl.nn.config import Remat
from ringrl.ops import AttentionConfig, Strategy
from ringrl.parallel import make_mesh
from ringrl.planning.cluster.targets import Target, fill_specification
from ringrl.planning.compile.buffers import largest_buffers
from ringrl.planning.compile.process import compile_plan
from ringrl.planning.compile.step import compile_step, synthetic_agent
from ringrl.planning.compile.transfers import find_transfers
from ringrl.planning.hlo.parser import parse
from ringrl.planning.model.traffic import estimate_traffic
from ringrl.planning.plan import Plan, Transfer
from ringrl.training.config import Precision, TrainingConfig

HOPS = {
    "ring: keys and values, forward",
    "ring: keys and values, forward again",
    "ring: keys and values, backward",
    "ring: gradients, backward",
}


def hops(found: tuple[Transfer, ...]) -> list[Transfer]:
    return [one for one in found if one.kind == "collective-permute"]


@pytest.mark.scale
def test_on_this_machine() -> None:
    attention = AttentionConfig(Strategy.ring, query_block_size=64, key_block_size=64)
    sizes: dict[str, Any] = {"layers": 2, "width": 64, "heads": 2, "feedforward_block_size": 64, "remat": Remat.layer}
    model, mesh = ModelConfig(**sizes, unroll_layers=False), make_mesh(ring=4)
    agent = synthetic_agent(model, attention, mesh, compute_dtype=jnp.float32, loss_block_size=64)
    compiled = compile_step(agent, TrainingConfig(), 1, 4096, {"xla_backend_optimization_level": 0})
    found = find_transfers(parse(compiled.as_text()))
    for kind, sent in estimate_traffic(agent, 1, 4096).items():
        assert sum(one.bytes for one in found if one.kind == kind) == pytest.approx(sent, rel=1e-12), kind
    assert {one.source for one in hops(found)} == {*HOPS, "ring: gradients home"}
    assert [one.source for one in hops(found) if not one.due] == ["ring: gradients home"]
    assert not any(one.across for one in found), "a CPU's compiler starts nothing before it waits for it"
    sources = {one.source for one in found} - {one.source for one in hops(found)}
    assert sources == {
        "parameters of a layer, forward",
        "parameters of a layer, forward again",
        "parameters of embedding and output, forward",
        "gradients of parameters of a layer",
        "gradients of parameters of embedding and output",
        "means, norms and gradients of small parameters",
    }
    buffers = largest_buffers(parse(compiled.as_text()))
    assert sum(one.bytes * one.count for one in buffers) < 1.1 * compiled.memory_analysis().temp_size_in_bytes
    assert ("layer inputs kept for the backward pass", 2 * 1024 * 64 * 4) in {
        (one.source, one.bytes) for one in buffers
    }


@pytest.mark.aot
@pytest.mark.parametrize(
    ("topology", "precision", "width", "tokens"),
    [
        ("v4:2x2x1", "bfloat16", 256, 2048),
        ("v3:2x2", "float32", 256, 2048),
        ("h100:1x4", "bfloat16", 256, 2048),
        ("a100:1x8", "float32", 4096, 8192),  # each array by itself: too large to be sent with others
    ],
)
def test_every_hop_is_across_matrix_products(topology: str, precision: str, width: int, tokens: int) -> None:
    sizes: dict[str, Any] = {"layers": 2, "width": width, "heads": width // 128, "feedforward_block_size": 512}
    model = ModelConfig(**sizes, remat=Remat.layer, unroll_layers=False)
    target = fill_specification(Target(topology=topology))
    plan = Plan(
        target=target,
        tokens=tokens * target.devices,
        model=model,
        attention=AttentionConfig(Strategy.ring, query_block_size=512, key_block_size=512),
        training=TrainingConfig(batch_size=1, precision=Precision(precision)),
    )
    report = compile_plan(plan)
    assert report.accepted, report.refusal
    assert hops(report.transfers)
    assert not report.exposed, "\n".join(f"{one.source} {one.shapes}" for one in report.exposed)
    assert report.memory is not None
    together = sum(one.bytes * one.count for one in report.buffers)
    assert 0.3 * report.memory.temporaries < together < 1.3 * report.memory.temporaries
    kept = 2 * tokens * width * (2 if precision == "bfloat16" else 4)
    assert ("layer inputs kept for the backward pass", kept) in {(one.source, one.bytes) for one in report.buffers}
