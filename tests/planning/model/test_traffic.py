"""Collectives read from small programs, and the estimate beside compiled ones where `test_step_program` has none."""

import jax.numpy as jnp
import pytest

from ringrl.errors import RingRLError
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.parallel import make_mesh
from ringrl.planning.compile.step import compile_step, synthetic_agent
from ringrl.planning.hlo.collectives import Collective, Kind, find_collectives, sum_bytes_sent
from ringrl.planning.hlo.parser import ArrayType, parse
from ringrl.planning.model.traffic import estimate_traffic
from ringrl.training.config import TrainingConfig

HEADER = "HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8,4])->f32[8,4]}, num_partitions=8\n"
KNOWN = ', backend_config={"known_trip_count":{"n":"3"},"known_init_step":{"init":"0","step":"1"}}'


def program(line: str, loop: str | None = None, bound: str = "  %bound = s32[] constant(5)\n") -> str:
    """A program of one collective, once or, with `loop`, the text after the loop's body, in a loop."""
    body = (
        "%body (x: f32[8,4]) -> f32[8,4] {\n"
        "  %x = f32[8,4]{1,0} parameter(0)\n  %y = bf16[2,3]{1,0} parameter(1)\n"
        f"{line}}}\n\n"
        "%condition (x: f32[8,4]) -> pred[] {\n"
        f"{bound}  ROOT %less = pred[] compare(%count, %bound), direction=LT\n}}\n\n"
    )
    call = "call(%z), to_apply=%body" if loop is None else f"while(%z), condition=%condition, body=%body{loop}"
    return f"{HEADER}\n{body}ENTRY %main (z: f32[8,4]) -> f32[8,4] {{\n  ROOT %end = f32[8,4] {call}\n}}\n"


def only(text: str) -> Collective:
    (found,) = find_collectives(parse(text))
    return found


@pytest.mark.parametrize(
    ("line", "kind", "group", "sent"),
    [
        ("f32[32,4]{1,0} all-gather(%x), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}", "all-gather", 4, 384),
        ("f32[2,4]{1,0} reduce-scatter(%x), replica_groups=[2,4]<=[8], dimensions={0}", "reduce-scatter", 4, 96),
        ("(f32[8,4], bf16[2,3]) all-reduce(%x, %y), replica_groups={{0,1},{2,3},{4,5},{6,7}}", "all-reduce", 2, 140),
        ("f32[8,4]{1,0} all-reduce(%x), replica_groups={}, to_apply=%sum", "all-reduce", 8, 224),
        ("(bf16[2,3], bf16[2,3]) all-to-all(%y, %y), replica_groups=[4,2]<=[2,4]T(1,0)", "all-to-all", 2, 12),
        ("bf16[2,3]{1,0} collective-permute(%y), source_target_pairs={{0,1},{1,0},{2,2}}", "collective-permute", 8, 3),
        (
            "f32[8,4] all-reduce(%x), replica_groups=mesh['a'=1,'b'=4,'c'=2], device_ids=([2,4]T(1,0)) {'b'}, x=1",
            "all-reduce",
            4,
            192,
        ),
        (
            "f32[8,4] all-reduce(%x), replica_groups=mesh['a'=4,'b'=2] {'a':(1)2,'b'}, use_global_device_ids=true",
            "all-reduce",
            4,
            192,
        ),
    ],
)
def test_bytes_by_kind(line: str, kind: str, group: int, sent: float) -> None:
    found = only(program(f'  %one = {line}, metadata={{op_name="jit(f)/hop/it"}}\n'))
    assert (found.kind, found.group, found.times, found.scope) == (kind, group, 1, "jit(f)/hop/it")
    assert found.bytes_sent == sent


def test_an_asynchronous_one_counts_once() -> None:
    lines = (
        "  %start = (bf16[2,3], bf16[16,3], u32[]) all-gather-start(%y), replica_groups={}, dimensions={0}\n"
        "  %done = bf16[16,3] all-gather-done(%start)\n"
    )
    found = only(program(lines))
    assert found.results == (ArrayType("bf16", (16, 3)),)
    assert found.bytes_sent == 7 * 12


@pytest.mark.parametrize(("loop", "times"), [(KNOWN, 3), ("", 5)])
def test_loops_repeat(loop: str, times: int) -> None:
    found = find_collectives(parse(program("  %one = f32[8,4] all-reduce(%x), replica_groups={}\n", loop)))
    assert [one.times for one in found] == [times]
    assert sum_bytes_sent(found) == {**dict.fromkeys(Kind, 0.0), Kind.all_reduce: times * 224}


def test_a_loop_without_a_count_is_refused() -> None:
    line = "  %one = f32[8,4] all-reduce(%x), replica_groups={}\n"
    with pytest.raises(RingRLError, match="does not say how often"):
        find_collectives(parse(program(line, "", "  %bound = s32[] parameter(0)\n")))
    (found,) = find_collectives(parse(program(line, "", "  %bound = s32[] parameter(0)\n")), uncounted=True)
    assert (found.times, found.counted) == (1, False)
    assert find_collectives(parse(program("", "", "  %bound = s32[] parameter(0)\n"))) == [], "nothing is sent in it"


@pytest.mark.parametrize("place", ["jit(f)/jvp()/while", "jit(f)/transpose(jvp())/while", "jit(f)/while"])
def test_the_loop_of_a_pass_is_known(place: str) -> None:
    """Compilers let passes share a body, whose own places are then those of one."""
    line = "  %one = f32[8,4] all-reduce(%x), replica_groups={}\n"
    found = only(program(line, f'{KNOWN}, metadata={{op_name="{place}"}}'))
    assert (found.counted, found.loop) == (True, place if "jvp" in place else "")


def test_no_program_is_refused() -> None:
    with pytest.raises(RingRLError, match="no compiled program"):
        parse("module @jit_step {}")


def small_agent(strategy: str, sizes: dict[str, int], dtype=jnp.float32, **model):
    fields = {"layers": 2, "width": 16, "heads": 4, "feedforward_block_size": 8, "unroll_layers": False, **model}
    attention = AttentionConfig(strategy, query_block_size=16, key_block_size=16)
    mesh = make_mesh(**sizes) if sizes else None
    return synthetic_agent(ModelConfig(**fields), attention, mesh, compute_dtype=dtype, loss_block_size=8)


def test_an_agent_without_a_mesh_has_no_estimate() -> None:
    with pytest.raises(RingRLError, match="sends nothing"):
        estimate_traffic(small_agent("blockwise", {}), 1, 128)


def test_one_device_sends_nothing() -> None:
    assert set(estimate_traffic(small_agent("ring", {"ring": 1}), 1, 128).values()) == {0.0}


def test_bfloat16_halves_what_is_not_a_sum() -> None:
    wide, narrow = (
        estimate_traffic(small_agent("ulysses", {"head": 4}, dtype), 1, 128) for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert narrow[Kind.all_to_all] == wide[Kind.all_to_all] / 2
    assert narrow[Kind.reduce_scatter] == wide[Kind.reduce_scatter]


@pytest.mark.scale
@pytest.mark.parametrize(
    ("strategy", "sizes", "pieces", "model"),
    [
        ("ring", {"ring": 4}, 1, {"remat": "attention"}),
        ("ring", {"ring": 4}, 2, {"remat": "dots", "feedforward": "swiglu"}),
        ("hybrid", {"ring": 4, "head": 2}, 1, {"remat": "none"}),
        ("ulysses", {"head": 4}, 1, {"remat": "layer", "key_value_heads": 2}),
        ("hybrid", {"ring": 4, "head": 2}, 1, {"remat": "offload", "key_value_heads": 1}),
    ],
)
def test_the_estimate_is_what_is_compiled(strategy: str, sizes: dict[str, int], pieces: int, model: dict) -> None:
    agent = small_agent(strategy, sizes, **model)
    training = TrainingConfig(batch_size=pieces, gradient_accumulation=pieces)
    compiled = compile_step(agent, training, pieces, 512, {"xla_backend_optimization_level": 0})
    found = sum_bytes_sent(find_collectives(parse(compiled.as_text())))
    assert found == pytest.approx(estimate_traffic(agent, pieces, 512, pieces), rel=1e-12)
