"""Live arrays at the peak of small programs, and their descriptions."""

import pytest

from ringrl.planning.compile.buffers import LARGEST, describe_largest, largest_buffers
from ringrl.planning.hlo.liveness import LiveArray, find_peak
from ringrl.planning.hlo.parser import parse
from ringrl.planning.hlo.places import describe_array
from ringrl.planning.plan import Buffer

STEP = "jit(train_step)/shard_map"
FORWARD = f"{STEP}/jvp()/while/body"
LAYER = f"{STEP}/transpose(jvp())/while/body/closed_call/checkpoint"
BACKWARD = f"{STEP}/transpose(jvp())/while/body"
WRITE = "jit(dynamic_update_index_in_dim)/dynamic_update_slice"


def program(entry: str, *bodies: str) -> str:
    return "\n".join(["HloModule m, is_scheduled=true", *bodies, f"ENTRY %main (a: f32[4]) -> f32[4] {{\n{entry}}}\n"])


def live(text: str) -> list[tuple[str, int]]:
    return sorted((one.shape, one.bytes) for one in find_peak(parse(text)))


def test_arrays_live_from_their_line_to_their_last_reader() -> None:
    entry = (
        "  %a = f32[4]{0} parameter(0)\n"
        "  %early = f32[100]{0} broadcast(%a), dimensions={}\n"
        "  %sum = f32[4]{0} fusion(%early), kind=kLoop, calls=%f\n"
        "  %late = f32[90]{0} broadcast(%sum), dimensions={}\n"
        "  %kept = f32[20]{0} broadcast(%sum), dimensions={}\n"
        "  ROOT %end = f32[4]{0} fusion(%late, %kept), kind=kLoop, calls=%f\n"
    )
    assert live(program(entry)) == [("f32[20]", 80), ("f32[4]", 16), ("f32[90]", 360)], (
        "results and arguments are no temporaries"
    )


def test_an_array_that_is_read_for_the_last_time_makes_room() -> None:
    entry = (
        "  %a = f32[4]{0} parameter(0)\n"
        "  %one = f32[100]{0} broadcast(%a), dimensions={}\n"
        "  %two = f32[100]{0} OPERATION\n"
        "  ROOT %end = f32[4]{0} fusion(%two), kind=kLoop, calls=%f\n"
    )
    in_place = entry.replace("OPERATION", "dynamic-update-slice(%one, %a)")
    assert live(program(in_place)) == [("f32[100]", 400)]
    assert live(program(entry.replace("OPERATION", "copy(%one)"))) == 2 * [("f32[100]", 400)]


BODY = """
%body (carry: (f32[50], f32[60])) -> (f32[50], f32[60]) {
  %carry = (f32[50]{0}, f32[60]{0}) parameter(0)
  %stays = f32[50]{0} get-tuple-element(%carry), index=0
  %before = f32[60]{0} get-tuple-element(%carry), index=1
  %small = f32[5]{0} fusion(%before, %stays), kind=kLoop, calls=%f
  %inside = f32[WORK]{0} broadcast(%small), dimensions={}, metadata={op_name="inside"}
  %part = f32[6]{0} fusion(%inside), kind=kLoop, calls=%f
  %after = f32[60]{0} broadcast(%part), dimensions={}, metadata={op_name="anew"}
  ROOT %tuple = (f32[50]{0}, f32[60]{0}) tuple(%stays, %after)
}
"""
LOOP = (
    "  %a = f32[4]{0} parameter(0)\n"
    '  %x = f32[50]{0} broadcast(%a), dimensions={}, metadata={op_name="before"}\n'
    "  %y = f32[60]{0} broadcast(%a), dimensions={}\n"
    "  %t = (f32[50]{0}, f32[60]{0}) tuple(%x, %y)\n"
    "  %loop = (f32[50]{0}, f32[60]{0}) while(%t), condition=%never, body=%body\n"
    "  %result = f32[60]{0} get-tuple-element(%loop), index=1\n"
    "  ROOT %end = f32[4]{0} fusion(%result), kind=kLoop, calls=%f\n"
)


def test_a_carry_makes_room_between_its_last_reader_and_its_next_value() -> None:
    found = find_peak(parse(program(LOOP, BODY.replace("WORK", "300"))))
    large = {(one.shape, one.place) for one in found if one.bytes > 100}
    assert large == {("f32[300]", "inside"), ("f32[50]", "before")}


def test_a_carry_lies_in_one_place() -> None:
    found = find_peak(parse(program(LOOP, BODY.replace("WORK", "7"))))
    assert {(one.shape, one.place) for one in found} >= {("f32[50]", "before"), ("f32[60]", "anew")}
    assert len([one for one in found if one.shape == "f32[60]"]) == 1


def test_of_branches_the_fullest_counts() -> None:
    branch = "%{0} (p: f32[4]) -> f32[4] {{\n  %p.{0} = f32[4]{{0}} parameter(0)\n  %in.{0} = f32[{1}]{{0}} "
    branch += "broadcast(%p.{0}), dimensions={{}}\n  ROOT %r.{0} = f32[4]{{0}} fusion(%in.{0}), calls=%f\n}}\n"
    entry = (
        "  %a = f32[4]{0} parameter(0)\n"
        "  ROOT %c = f32[4]{0} conditional(%a, %a, %a), branch_computations={%left, %right}\n"
    )
    assert live(program(entry, branch.format("left", 30), branch.format("right", 70))) == [("f32[70]", 280)]


def test_what_travels_counts_once_on_each_side() -> None:
    entry = (
        "  %a = f32[4]{0} parameter(0)\n"
        "  %x = f32[9]{0} broadcast(%a), dimensions={}\n"
        "  %start = (f32[9]{0}, f32[9]{0}, u32[]) collective-permute-start(%x), source_target_pairs={{0,1}}\n"
        "  %done = f32[9]{0} collective-permute-done(%start)\n"
        "  ROOT %end = f32[4]{0} fusion(%done), kind=kLoop, calls=%f\n"
    )
    assert [one for one in live(program(entry)) if one[0] == "f32[9]"] == 2 * [("f32[9]", 36)]


@pytest.mark.parametrize(
    ("place", "shape", "words"),
    [
        (
            f"{LAYER}/attention/while/gradients/hop/ppermute",
            "f32[1,8,2,4]",
            "gradients of keys",
        ),
        (f"{FORWARD}/closed_call/attention/while/hop/ppermute", "bf16[1,8,2,4]", "keys and values on the ring"),
        (f"{BACKWARD}/{WRITE}", "f32[2,64,64]", "gradients of parameters"),
        (f"{LAYER}/rematted_computation/all_gather", "bf16[4,4]", "parameters gathered"),
        (
            f"{LAYER}/feedforward/while/body/dot_general",
            "f32[4,4]",
            "gradients of a layer's p",
        ),
        (f"{LAYER}/feedforward/while/body/{WRITE}", "f32[8,1,4,4]", "feed-forward, backward"),
        (
            f"{LAYER}/attention/while/body/closed_call/{WRITE}",
            "f32[1,8,2,4]",
            "gradients of k",
        ),
        (f"{FORWARD}/closed_call/attention/while/body/exp", "f32[1,8,2,4]", "attention, forward"),
        ("jit(train_step)/optimizer/mul", "f32[8,8]", "the optimizer's update"),
        (f"{STEP}/psum_of_something", "f32[8]", "psum_of_something"),
    ],
)
def test_names(place: str, shape: str, words: str) -> None:
    assert describe_array(place, shape).startswith(words)


def test_alike_ones_are_joined_and_the_largest_stand_first() -> None:
    kept = f"{FORWARD}/{WRITE}"
    arrays = [
        LiveArray("f32[2,1,8,4]", 256, kept),
        LiveArray("f32[2,1,8,2]", 128, kept),
        *3 * [LiveArray("f32[50]", 200, "x")],
        *(LiveArray(f"f32[{size}]", 4 * size, "y") for size in range(1, LARGEST)),
    ]
    found = describe_largest(arrays)
    assert len(found) == LARGEST
    assert found[:3] == (
        Buffer(200, "f32[50]", "x", 3),
        Buffer(256, "f32[2,1,8,4]", "layer inputs kept for the backward pass"),
        Buffer(128, "f32[2,1,8,2]", "kept of every layer for the backward pass"),
    )
    several = describe_largest([arrays[0], LiveArray("bf16[2,1,8,4]", 128, kept)])
    assert {one.source for one in several} == {"kept of every layer for the backward pass"}, "which is which, none says"


def test_of_a_compiled_program() -> None:
    text = program(LOOP, BODY.replace("WORK", "300"))
    found = largest_buffers(parse(text))
    assert found[0] == Buffer(1200, "f32[300]", "inside")
