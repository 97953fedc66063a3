"""When a ring's blocks travel: the reader of schedules on small ones, and the ring by its targets' own compilers.

A compiler that is not installed fails the second half, which `make test-schedules` runs.
"""

import functools

import pytest

from ringrl.errors import RingRLError
from ringrl.ops import Kernel
from ringrl.planning.compile.attention import AttentionSizes, Program
from ringrl.planning.compile.schedules import Request, Schedule, schedule
from ringrl.planning.hlo.overlap import ScheduledCollective, find_permutes, find_scheduled_collectives
from ringrl.planning.hlo.parser import COLLECTIVES, parse

HEADER = "HloModule jit_ring, is_scheduled=true, entry_computation_layout={(bf16[8,4]{1,0:T(8,128)})->bf16[8,4]{1,0}}\n"
BLOCKS = """
%product (a: bf16[8,4], b: bf16[4,8]) -> f32[8,8] {
  %a = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[4,8]{1,0} parameter(1)
  ROOT %convolution.1 = f32[8,8]{1,0} convolution(%a, %b), dim_labels=bf_io->bf
}

%block_loop (state: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %state = (s32[]{:T(128)}, /*index=1*/bf16[8,4]{1,0:T(8,128)(2,1)S(3)}) parameter(0)
  %x = bf16[8,4]{1,0} get-tuple-element(%state), index=1
  %scores = f32[8,8]{1,0} fusion(%x, %x), kind=kOutput, calls=%product
  ROOT %tuple.1 = (s32[]{:T(128)}, bf16[8,4]{1,0}) tuple(%x, %x)
}

%elementwise_loop (state: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %state.2 = (s32[], bf16[8,4]{1,0}) parameter(0)
  ROOT %tuple.2 = (s32[], bf16[8,4]{1,0}) tuple(%state.2)
}
"""
WRAPPED = """
%wrapped (x: bf16[8,4]) -> bf16[8,4] {
  %x.3 = bf16[8,4]{1,0} parameter(0)
  ROOT %permute.3 = bf16[8,4]{1,0} collective-permute(%x.3), source_target_pairs={{0,1},{1,0}}
}
"""
PARAMETER = (
    "  %carry = (bf16[8,4]{1,0}, s32[]) parameter(0)\n  %keys = bf16[8,4]{1,0} get-tuple-element(%carry), index=0\n"
)
WORK = "  %while.9 = (s32[], bf16[8,4]{1,0}) while(%tuple), condition=%never, body=%block_loop\n"
LIGHT_WORK = "  %while.8 = (s32[], bf16[8,4]{1,0}) while(%tuple), condition=%never, body=%elementwise_loop\n"
START = (
    "  %start = (bf16[8,4]{1,0:T(8,128)(2,1)}, bf16[8,4]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}, u32[]{:S(2)}) "
    'collective-permute-start(%keys), source_target_pairs={{0,1},{1,0}}, metadata={op_name="jit(f)/hop"}\n'
)
DONE = "  %done = bf16[8,4]{1,0:T(8,128)(2,1)} collective-permute-done(%start)\n"


def program(*steps: str) -> str:
    """A loop of the ring, whose body holds these steps."""
    entry = "ENTRY %hop (carry: (bf16[8,4], s32[])) -> (bf16[8,4], s32[])"
    return f"{HEADER}{BLOCKS}\n{entry} {{\n{PARAMETER}{''.join(steps)}}}\n"


def only(text: str) -> ScheduledCollective:
    (found,) = find_permutes(parse(text))
    return found


def test_across_the_block_loop() -> None:
    found = only(program(START, LIGHT_WORK, WORK, DONE))
    assert found == ScheduledCollective("start", "hop", "jit(f)/hop", ("bf16[8,4]",), False, ("while.9",))
    assert not found.exposed
    assert str(found).endswith("across while.9")


@pytest.mark.parametrize(
    "steps",
    [
        (WORK, START, DONE),
        (START, DONE, WORK),
        (WORK, START, LIGHT_WORK, DONE),
    ],
)
def test_serialized(steps: tuple[str, ...]) -> None:
    found = only(program(*steps))
    assert [permute for permute in find_permutes(parse(program(*steps))) if permute.exposed] == [found]
    assert not found.synchronous


@pytest.mark.parametrize(
    "steps",
    [
        ("  %sent = bf16[8,4]{1,0} collective-permute(%keys), source_target_pairs={{0,1},{1,0}}\n", WORK),
        (START.replace("metadata", 'backend_config={"is_sync":true}, metadata'), WORK, DONE),  # as a GPU notes it
    ],
)
def test_synchronous(steps: tuple[str, ...]) -> None:
    found = only(program(*steps))
    assert found.synchronous
    assert found.exposed
    assert "synchronous" in str(found)


def test_a_transfer_that_waits_for_another() -> None:
    """As a compiler does that lets one be under way at a time: the second starts when the first is done."""
    second = START.replace("%start", "%second").replace("%keys", "%values") + "  %last = bf16[8,4] "
    found = find_permutes(parse(program(START, WORK, DONE, second + "collective-permute-done(%second)\n")))
    assert [(permute.name, permute.exposed) for permute in found] == [("start", False), ("second", True)]


def test_several_arrays_at_once_and_a_product_of_a_library() -> None:
    start = (
        "  %start = ((bf16[8,4]{1,0}, s32[2,8]{1,0}), (bf16[8,4]{1,0}, s32[2,8]{1,0})) "
        "collective-permute-start(%keys, %labels), source_target_pairs={{0,1},{1,0}}\n"
    )
    product = '  %gemm.2 = f32[8,8]{1,0} custom-call(%keys), custom_call_target="__cublas$gemm"\n'
    no_product = '  %buffer = f32[8,8]{1,0} custom-call(), custom_call_target="AllocateBuffer"\n'
    found = only(program(start, no_product, product, DONE))
    assert found.shapes == ("bf16[8,4]", "s32[2,8]")
    assert found.across == ("gemm.2",)


def test_a_transfer_wrapped_in_a_general_start() -> None:
    start = "  %start = ((bf16[8,4]{1,0}), bf16[8,4]{1,0}, s32[]) async-start(%keys), calls=%wrapped\n"
    done = "  %done = bf16[8,4]{1,0} async-done(%start), calls=%wrapped\n"
    found = only(program(start, WORK, done).replace(HEADER, HEADER + WRAPPED))
    assert (found.name, found.wrapped) == ("start", "permute.3"), "what it wraps is not counted again"
    assert found.across == ("while.9",)
    update = "  %update = ((bf16[8,4]{1,0}), bf16[8,4]{1,0}, s32[]) async-update(%start), calls=%wrapped\n"
    late = update + WORK + done.replace("%start", "%update")
    assert only(program(start, late).replace(HEADER, HEADER + WRAPPED)).across == ("while.9",)


@pytest.mark.parametrize("kind", COLLECTIVES)
def test_other_collectives(kind: str) -> None:
    start, done = (line.replace("collective-permute", kind) for line in (START, DONE))
    (found,) = find_scheduled_collectives(parse(program(start, WORK, done)))
    assert (found.kind, found.across, found.synchronous) == (kind, ("while.9",), False)
    (found,) = find_scheduled_collectives(
        parse(program(f"  %all = bf16[8,4]{{1,0}} {kind}(%keys), replica_groups={{}}\n", WORK))
    )
    assert (found.kind, found.exposed, found.synchronous) == (kind, True, True)
    assert bool(find_permutes(parse(program(start, WORK, done)))) == (kind == "collective-permute")


def test_a_branch_with_products_counts() -> None:
    branch = "  %either = f32[8,8] conditional(%p, %a, %b), branch_computations={%elementwise_loop, %block_loop}\n"
    assert only(program(START, branch, DONE)).across == ("either",)


def test_order_means_nothing_before_scheduling() -> None:
    with pytest.raises(RingRLError, match="no schedule"):
        find_permutes(parse(program(START, WORK, DONE).replace(", is_scheduled=true", "")))


def test_a_done_in_another_computation_is_refused() -> None:
    with pytest.raises(RingRLError, match="start starts in hop and is done elsewhere"):
        find_permutes(parse(program(START, WORK)))


SIZES = AttentionSizes(tokens=4096, heads=8, key_heads=8, head_size=128, block_size=512, layers=4)
LARGE = AttentionSizes(tokens=4096, heads=32, key_heads=32, head_size=128, block_size=1024, layers=4)


@functools.cache
def scheduled(
    target: str, program: Program, sizes: AttentionSizes, kernel: Kernel = Kernel.xla, flags: bool = True
) -> Schedule:
    return schedule(Request(target, program, sizes, kernel, flags))


@pytest.mark.aot
@pytest.mark.parametrize(
    ("target", "program", "sizes", "kernel", "devices"),
    [
        ("v4:2x2x2", Program.forward, SIZES, Kernel.xla, 8),
        ("v4:2x2x2", Program.gradient, SIZES, Kernel.xla, 8),
        ("v4:2x2x2", Program.layers, SIZES, Kernel.xla, 8),
        ("v4:8x8x8", Program.layers, SIZES, Kernel.xla, 512),
        ("v3:2x2", Program.gradient, SIZES, Kernel.xla, 8),
        ("h100:8", Program.forward, LARGE, Kernel.xla, 8),
        ("h100:8", Program.gradient, LARGE, Kernel.xla, 8),
        ("h100:8", Program.layers, LARGE, Kernel.xla, 8),
        ("v4:2x2x2", Program.gradient, SIZES, Kernel.pallas, 8),
        ("v5e:2x4", Program.gradient, SIZES, Kernel.pallas, 8),
    ],
)
def test_every_hop_is_across_the_kernel(
    target: str, program: Program, sizes: AttentionSizes, kernel: Kernel, devices: int
) -> None:
    found = scheduled(target, program, sizes, kernel)
    assert found.devices == devices
    exposed = [str(hop) for hop in found.hops if hop.exposed]
    assert not exposed, "\n".join(exposed)
    assert any(not hop.backward for hop in found.hops)
    backward = program is not Program.forward
    assert any(hop.backward for hop in found.hops) == backward
    assert bool(found.homeward) == backward, (
        "a piece's gradients, complete, go home, with nothing of that piece left to compute"
    )


@pytest.mark.aot
@pytest.mark.parametrize(
    ("target", "sizes", "synchronous"),
    [("v3:2x2", SIZES, True), ("h100:8", LARGE, False)],
)
def test_why_these_targets_have_flags(target: str, sizes: AttentionSizes, synchronous: bool) -> None:
    exposed = [hop for hop in scheduled(target, Program.gradient, sizes, flags=False).hops if hop.exposed]
    assert exposed
    assert not synchronous or all(hop.synchronous for hop in exposed)
