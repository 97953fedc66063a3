"""Searches with compilers that are functions: one with a threshold, liars, one that refuses all, one that takes all."""

import dataclasses

import pytest

from ringrl.errors import RingRLError
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.parallel.mesh import MeshConfig
from ringrl.planning.cluster.targets import Target
from ringrl.planning.plan import Plan, Report
from ringrl.planning.report.paper import TABLE_3, paper_context
from ringrl.planning.search import MAX_TOKENS, make_context_plans, search_blocks, search_context, search_strategies
from ringrl.training.config import TrainingConfig

RING = Plan(Target(topology="v4:2x2x2"), tokens=4096, attention=AttentionConfig("ring"))


def up_to(threshold):
    """A compiler that accepts chains of so many tokens."""
    return lambda plan: Report(plan.tokens, accepted=plan.tokens <= threshold)


def asked(found):
    return [report.tokens for report in found.reports]


def test_a_right_guess_costs_one_refusal_and_one_acceptance():
    found = search_context(RING, up_to(40_000), guess=32_768)
    assert asked(found) == [65_536, 32_768]
    assert (found.largest.tokens, found.largest.accepted) == (32_768, True)
    assert (found.refused.tokens, found.refused.accepted) == (65_536, False)


@pytest.mark.parametrize("guess", [0, 1, 8, 1000, 32_768, 100_000, 2**24, 2**40])
@pytest.mark.parametrize("threshold", [8, 100, 32_768, 70_000, 2**20])
def test_a_guess_that_lies_changes_only_what_it_costs(guess, threshold):
    found = search_context(RING, up_to(threshold), guess)
    assert found.largest.tokens == 2 ** (threshold.bit_length() - 1)
    assert found.refused.tokens == 2 * found.largest.tokens
    assert len(set(asked(found))) == len(found.reports)
    steps = [report.accepted for report in found.reports]
    assert len(set(steps[:-1])) == 1  # one direction, until the answer turns
    assert steps[-1] != steps[0]


def test_too_low_a_guess_goes_up_and_too_high_a_guess_goes_down():
    assert asked(search_context(RING, up_to(4096), guess=1024)) == [2048, 4096, 8192]
    assert asked(search_context(RING, up_to(4096), guess=8192)) == [16_384, 8192, 4096]


def test_a_compiler_that_refuses_all_is_asked_down_to_the_shortest_chain_of_the_layout():
    plan = dataclasses.replace(RING, attention=AttentionConfig("ring", "zigzag"))
    found = search_context(plan, up_to(0), guess=100, bisect=True)
    assert asked(found) == [128, 64, 32, 16]
    assert found.largest is None
    assert found.refused.tokens == plan.multiple == 16


def test_a_compiler_that_takes_all_is_asked_up_to_the_positions_of_an_int32():
    found = search_context(RING, up_to(2**40), guess=2**28, bisect=True)
    assert asked(found) == [2**29, 2**30]
    assert found.refused is None
    assert found.largest.tokens == 2**30
    assert max(one.tokens for one in make_context_plans(RING)) <= MAX_TOKENS == 2**31 - 1


@pytest.mark.parametrize("guess", [256, 2**20])
@pytest.mark.parametrize("threshold", range(1024, 2048, 64))
def test_bisection_ends_an_eighth_apart_after_three_more(threshold, guess):
    plain = search_context(RING, up_to(threshold), guess)
    found = search_context(RING, up_to(threshold), guess, bisect=True)
    assert asked(found)[: len(plain.reports)] == asked(plain)
    assert len(found.reports) == len(plain.reports) + 3
    assert found.largest.accepted
    assert not found.refused.accepted
    assert found.largest.tokens <= threshold < found.refused.tokens
    assert found.refused.tokens - found.largest.tokens == 128


def test_bisection_of_short_chains_stops_where_rounding_does():
    found = search_context(RING, up_to(23), guess=16, bisect=True)
    assert asked(found) == [32, 16, 24]
    assert (found.largest.tokens, found.refused.tokens) == (16, 24)


def test_contexts_are_rounded_up_to_what_is_dealt_evenly_and_never_twice():
    plan = dataclasses.replace(
        RING, target=Target(topology="cpu:6"), agent=dataclasses.replace(RING.agent, tokens_per_step=4)
    )
    tokens = [one.tokens for one in make_context_plans(plan)]
    assert tokens[:4] == [24, 48, 72, 144]  # 16, 32, 64 and 128 in steps of 4 tokens over 6 devices
    assert all(count % 24 == 0 for count in tokens)
    assert tokens == sorted(set(tokens))
    assert make_context_plans(plan.of(1_000_000)) == make_context_plans(plan)


def test_progress_counts_what_was_compiled_and_ends_full():
    told = []
    found = search_context(RING, up_to(5000), 4096, bisect=True, advance=lambda *numbers: told.append(numbers))
    assert [done for done, _ in told] == list(range(len(found.reports) + 1))
    assert all(done < total for done, total in told[:-1])
    assert told[-1] == (5, 5)


def test_blocks_are_square_and_those_beyond_a_device_s_part_are_not_compiled():
    compiled = []

    def compile(plan):
        compiled.append((plan.attention.query_block_size, plan.attention.key_block_size))
        return Report(plan.tokens, accepted=True)

    found = search_blocks(RING, compile, sizes=(256, 512, 1024))
    assert compiled == [(256, 256), (512, 512)]
    assert [one.report is not None for one in found] == [True, True, False]
    assert found[2].reason == "larger than the 512 tokens that a device attends to at once"
    assert [one.plan.attention.key_block_size for one in found] == [256, 512, 1024]
    assert all(one.plan.tokens == RING.tokens for one in found)


def test_ulysses_attends_to_whole_chains_and_a_hybrid_to_the_part_of_its_ring():
    compile = up_to(2**40)
    ulysses = dataclasses.replace(RING, attention=AttentionConfig("ulysses"))
    hybrid = dataclasses.replace(RING, attention=AttentionConfig("hybrid"), mesh=MeshConfig(ring=4, head=2))
    assert all(one.report for one in search_blocks(ulysses, compile))
    assert [one.report is None for one in search_blocks(hybrid, compile)] == [False, False, False, True, True]


def test_dense_attention_has_no_blocks_to_search():
    plan = dataclasses.replace(RING, attention=AttentionConfig("dense"), mesh=MeshConfig(fsdp=8))
    with pytest.raises(RingRLError, match=r"attention.strategy=dense has no blocks"):
        search_blocks(plan, up_to(1))


def test_strategies_are_all_that_the_heads_and_devices_allow():
    plan = dataclasses.replace(RING, model=ModelConfig(width=128, heads=4))
    found = {one.name: one for one in search_strategies(plan, up_to(2**40))}
    assert list(found) == ["blockwise, 8 chains", "ring", "hybrid, head=2 ring=4", "hybrid, head=4 ring=2", "ulysses"]
    assert found["blockwise, 8 chains"].plan.chains == 8
    assert found["ring"].plan.chains == 1
    for one in found.values():
        sizes = one.plan.sizes
        assert sizes["fsdp"] * sizes["ring"] * sizes["head"] == 8
        assert (one.report is None) == (one.name == "ulysses")
    assert "4 heads do not divide among 8" in found["ulysses"].reason
    assert found["hybrid, head=2 ring=4"].plan.attention.strategy == "hybrid"


def test_strategies_keep_the_replicas_and_round_the_chain_to_each_layout():
    plan = dataclasses.replace(
        RING, tokens=1001, mesh=MeshConfig(data=2, ring=4), training=TrainingConfig(batch_size=16)
    )
    found = {one.name: one.plan for one in search_strategies(plan, up_to(2**40))}
    assert all(one.sizes["data"] == 2 for one in found.values())
    assert "blockwise" in found  # sixteen chains lie on eight devices already
    assert found["blockwise"].tokens == 1001
    assert found["ring"].tokens == 1004


def test_parameters_are_split_where_the_devices_do_not_divide_the_width():
    odd = dataclasses.replace(RING, model=dataclasses.replace(RING.model, width=12, heads=1))
    found = {one.name: one.plan.sizes for one in search_strategies(odd, up_to(2**40))}
    assert found["ring"] == {"data": 1, "fsdp": 1, "ring": 4, "head": 2}
    assert found["blockwise, 8 chains"] == {"data": 2, "fsdp": 4, "ring": 1, "head": 1}


def test_one_device_has_nobody_to_exchange_with():
    plan = dataclasses.replace(RING, target=Target(topology="h200:1"))
    assert [one.name for one in search_strategies(plan, up_to(2**40))] == ["blockwise"]


def test_a_compiler_that_fails_once_is_a_reason_and_one_that_fails_always_is_an_error():
    def compile(plan):
        if plan.attention.strategy == "hybrid":
            raise RingRLError("The compiler failed.")
        return Report(plan.tokens, accepted=True)

    told = []
    found = search_strategies(RING, compile, advance=lambda *numbers: told.append(numbers))
    assert {one.name for one in found if one.reason == "The compiler failed."} == {
        "hybrid, head=2 ring=4",
        "hybrid, head=4 ring=2",
    }
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]  # four heads do not divide among eight: ulysses is out

    def missing(plan):
        raise RingRLError("There is no compiler.")

    with pytest.raises(RingRLError, match="There is no compiler"):
        search_strategies(RING, missing)
    with pytest.raises(RingRLError, match="There is no compiler"):
        search_context(RING, missing, 1)


def test_the_paper_s_table_holds_its_own_claims():
    assert paper_context("tpu_v4_1024", "7b") == 8192 * 1024
    assert paper_context("a100x8", "13b") == 128 * 1024
    assert paper_context("a100x8", "30b") is None
    assert paper_context("somewhere", "7b") is None
    for models in TABLE_3.values():
        for row in models.values():
            assert row.vanilla <= row.memory_efficient <= row.blockwise < row.ring
