"""The paper's table of minimal blocks, the rule behind it, and what plans make of it."""

import dataclasses

import pytest

from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.parallel.mesh import MeshConfig
from ringrl.planning.cluster.targets import Target, fill_specification
from ringrl.planning.model import roofline
from ringrl.planning.plan import Plan
from ringrl.training.config import TrainingConfig

# Table 2 of arXiv 2310.01889: thousands of tokens. It prints 24.5 where its figures make 24.96.
TABLE_2 = [
    ("a100:1x8", 1.0, 6.2, 0.05),
    ("a100:4x8", 24.5, 149.5, 0.5),
    ("v3:16x16", 1.1, 6.6, 0.05),
    ("v4:8x8x8", 1.0, 6.2, 0.05),
    ("v5e:16x16", 1.1, 6.3, 0.05),
]


@pytest.mark.parametrize(("topology", "block", "sequence", "rounding"), TABLE_2)
def test_the_papers_table(topology: str, block: float, sequence: float, rounding: float) -> None:
    found = roofline.minimal_tokens(fill_specification(Target(topology=topology)))
    assert found.block / 1e3 == pytest.approx(block, abs=rounding)
    assert found.sequence / 1e3 == pytest.approx(sequence, abs=rounding)


@pytest.mark.parametrize(
    ("heads", "key_heads", "number_bytes", "attended"),
    [(32, 32, 2, 1.0), (32, 8, 2, 1.0), (8, 8, 4, 0.5), (6, 2, 4, 1)],
)
def test_at_the_minimum_transfer_and_attention_take_the_same_time(
    heads: int, key_heads: int, number_bytes: int, attended: float
) -> None:
    target, head_size = fill_specification(Target(topology="h100:8")), 128
    sizes = {"heads": heads, "key_heads": key_heads, "number_bytes": number_bytes, "attended": attended}
    tokens = roofline.minimal_tokens(target, **sizes).block
    transfer = 2 * tokens * key_heads * head_size * number_bytes / target.bandwidth
    attention = 4 * tokens**2 * heads * head_size * attended / target.peak_flops
    assert transfer == pytest.approx(attention)


def plan_of(strategy: str, tokens: int, precision: str = "bfloat16", **mesh: int) -> Plan:
    return Plan(
        Target(topology="a100:1x8"),
        tokens,
        model=ModelConfig(width=64, heads=8),
        attention=AttentionConfig(strategy),
        mesh=MeshConfig(**mesh),
        training=TrainingConfig(batch_size=8, precision=precision),
    )


def test_a_plan_meets_it_or_not() -> None:
    assert not roofline.meets_minimum(plan_of("ring", 8 * 1039, ring=8))
    enough = plan_of("ring", 8 * 1040, ring=8)
    assert roofline.meets_minimum(enough)
    assert not roofline.meets_minimum(enough, attended=0.5)
    assert not roofline.meets_minimum(plan_of("ring", 8 * 1040, "float32", ring=8))


def test_a_hop_goes_over_one_link_and_a_mask_dealt_evenly_spares_half() -> None:
    plan = dataclasses.replace(plan_of("ring", 8 * 2**14, ring=8), target=Target(topology="v4:2x2x2"))
    contiguous = dataclasses.replace(plan, attention=AttentionConfig("ring", "contiguous"))
    zigzag = dataclasses.replace(plan, attention=AttentionConfig("ring", "zigzag"))
    assert roofline.hop_minimum(contiguous).block == pytest.approx(275e12 / 50e9)
    assert roofline.hop_minimum(zigzag).block == pytest.approx(2 * 275e12 / 50e9)
    network = dataclasses.replace(zigzag, target=Target(topology="a100:2x4"))
    assert roofline.hop_minimum(network).block == pytest.approx(2 * 312e12 / 12.5e9)


def test_heads_exchanged_attend_together() -> None:
    ring, hybrid = (roofline.plan_minimum(plan_of(name, 2**14, ring=2, head=4)) for name in ("ring", "hybrid"))
    assert hybrid.block == ring.block / 4


@pytest.mark.parametrize(("strategy", "mesh"), [("ulysses", {"head": 8}), ("blockwise", {"fsdp": 8})])
def test_where_no_ring_goes_round_nothing_is_asked(strategy: str, mesh: dict[str, int]) -> None:
    plan = plan_of(strategy, 64, **mesh)
    assert roofline.plan_minimum(plan) == roofline.Minimum(0.0, 0.0)
    assert roofline.meets_minimum(plan)


def test_unknown_figures_ask_nothing() -> None:
    assert roofline.minimal_tokens(fill_specification(Target(topology="cpu:8"))).block == 0.0
    given = dataclasses.replace(fill_specification(Target(topology="cpu:8")), peak_flops=1e12, bandwidth=1e9)
    assert roofline.minimal_tokens(given).block == 1000.0


def test_attention_over_matrices_is_the_papers_ratio() -> None:
    """S / 6M; LLaMA's 7B, whose feed-forward is gated and 11,008 wide, has nearly the same."""
    assert roofline.attention_ratio(4096, 6 * 4096) == 1.0
    assert roofline.attention_ratio(4096, 6 * 4096, feedforward_width=11008) == pytest.approx(1.0, rel=0.01)
    assert roofline.attention_ratio(64, 6 * 64, gated=False, feedforward_width=4 * 64) == 1.0


def test_the_expected_utilisation_adds_times() -> None:
    """Half of the work at 50 % and half at 25 %: 3 units of time at most, for 4/3 at full speed."""
    assert roofline.expected_mfu(0.5, matrices_mfu=0.5, attention_mfu=0.25) == pytest.approx(1 / 3)
    assert roofline.expected_mfu(0.0, matrices_mfu=0.5, attention_mfu=0.25) == 0.5
    assert roofline.expected_mfu(1.0, matrices_mfu=0.5, attention_mfu=0.25) == 0.25
