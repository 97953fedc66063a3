"""Transfers of a whole step, read from small programs: origin, count, and overlap."""

import pytest

from ringrl.errors import RingRLError
from ringrl.planning.compile.transfers import find_transfers
from ringrl.planning.hlo.parser import parse
from ringrl.planning.hlo.places import describe_transfer
from ringrl.planning.plan import Transfer

HEADER = "HloModule jit_train_step, is_scheduled=true, num_partitions=4\n"
PRODUCT = """
%product (a: f32[8,4], b: f32[4,8]) -> f32[8,8] {
  %a = f32[8,4]{1,0} parameter(0)
  %b = f32[4,8]{1,0} parameter(1)
  ROOT %dot.1 = f32[8,8]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""
WORK = "  %scores = f32[8,8]{1,0} fusion(%x, %y), kind=kOutput, calls=%product\n"
ARRAY = "  %x = f32[8,4]{1,0} parameter(0)\n"
PAIRS = "source_target_pairs={{0,1},{1,2},{2,3},{3,0}}"
STEP = "jit(train_step)/shard_map"
LAYER = f"{STEP}/jvp()/while/body/closed_call"
BACKWARD = f"{STEP}/transpose(jvp())/while/body/closed_call/checkpoint"


def at(place: str) -> str:
    return f', metadata={{op_name="{place}"}}'


def body(*lines: str, name: str = "body", before: str = "") -> str:
    parameters = "  %x = f32[8,4]{1,0} parameter(0)\n  %y = f32[4,8]{1,0} parameter(1)\n"
    return f"{before}\n%{name} (x: f32[8,4], y: f32[4,8]) -> f32[8,4] {{\n{parameters}{''.join(lines)}}}\n"


def loop(name: str, place: str, times: int | None = 3) -> str:
    known = "" if times is None else f', backend_config={{"known_trip_count":{{"n":"{times}"}}}}'
    return f"  %loop.{name} = f32[8,4]{{1,0}} while(%z), condition=%never, body=%{name}{known}{at(place)}\n"


def program(bodies: str, *lines: str) -> str:
    return f"{HEADER}{PRODUCT}{bodies}\nENTRY %main (z: f32[8,4]) -> f32[8,4] {{\n{ARRAY}{''.join(lines)}}}\n"


def permute(name: str, array: str, place: str, *between: str) -> str:
    start = f"  %{name} = ({array}, {array}, u32[], u32[]) collective-permute-start(%x), {PAIRS}{at(place)}\n"
    return start + "".join(between) + f"  %{name}.done = {array} collective-permute-done(%{name})\n"


def test_hops_of_both_passes() -> None:
    forward = body(permute("keys", "f32[8,4]{1,0}", f"{LAYER}/attention/hop/ppermute", WORK), name="forward")
    gradients = permute("gradients", "f32[8,4]{1,0}", f"{BACKWARD}/attention/gradients/hop/ppermute", WORK)
    home = permute("home", "f32[8,4]{1,0}", f"{BACKWARD}/attention/home/ppermute")
    text = program(
        forward + body(gradients, home, name="backward"),
        loop("forward", f"{STEP}/jvp()/while", 3),
        loop("backward", f"{STEP}/transpose(jvp())/while", 2),
    )
    shapes, kind = ("f32[8,4]",), "collective-permute"
    assert find_transfers(parse(text)) == (
        Transfer(kind, "ring: keys and values, forward", shapes, 3, 3 * 128, across=True),
        Transfer(kind, "ring: gradients, backward", shapes, 2, 2 * 128, across=True),
        Transfer(kind, "ring: gradients home", shapes, 2, 2 * 128, across=False, due=False),
    )


def test_an_exposed_hop_is_not_joined_with_others() -> None:
    place = f"{LAYER}/attention/hop/ppermute"
    late = permute("labels", "s32[2,8]{1,0}", place).replace("%x", "%labels_here")
    late = "  %labels_here = s32[2,8]{1,0} parameter(2)\n" + late
    text = program(body(permute("keys", "f32[8,4]{1,0}", place, WORK), late), loop("body", f"{STEP}/jvp()/while"))
    assert [(one.shapes, one.across) for one in find_transfers(parse(text))] == [
        (("f32[8,4]",), True),
        (("s32[2,8]",), False),
    ]
    assert len({one.source for one in find_transfers(parse(text))}) == 1


def test_a_body_that_two_passes_share() -> None:
    """As a GPU's compiler does: what is computed again has a forward pass's name, or the other way round."""
    place = f"{BACKWARD}/rematted_computation/attention/hop/ppermute"
    text = program(
        body(permute("keys", "f32[8,4]{1,0}", place, WORK)),
        loop("body", f"{LAYER}/attention/while", 3),
        loop("body", f"{BACKWARD}/rematted_computation/attention/while", 3).replace("%loop.body", "%loop.again"),
    )
    assert [one.source.rpartition(", ")[2] for one in find_transfers(parse(text))] == ["forward", "forward again"]


@pytest.mark.parametrize("between", [WORK, ""])
@pytest.mark.parametrize(
    ("start", "done", "kind", "source", "shapes", "sent"),
    [
        (
            f"(f32[8,4], f32[32,4]) all-gather-start(%x), replica_groups={{}}{at(f'{LAYER}/all_gather')}",
            "f32[32,4] all-gather-done(%start)",
            "all-gather",
            "parameters of a layer, forward",
            ("f32[32,4]",),
            3 * 128,
        ),
        (
            f"((f32[8,4]), f32[2,4], u32[]) async-start(%x), calls=%wrapped{at(f'{BACKWARD}/reduce_scatter')}",
            "f32[2,4] async-done(%update)",
            "reduce-scatter",
            "gradients of parameters of a layer",
            ("f32[8,4]",),
            96,
        ),
        (
            "f32[8,4] all-reduce-start(%x), replica_groups={}, to_apply=%add",
            "f32[8,4] all-reduce-done(%start)",
            "all-reduce",
            "means, norms and gradients of small parameters",
            ("f32[8,4]",),
            192,
        ),
    ],
)
def test_other_collectives(
    start: str, done: str, kind: str, source: str, shapes: tuple[str, ...], sent: float, between: str
) -> None:
    wrapped = body("  ROOT %inner = f32[2,4] reduce-scatter(%x), replica_groups={}, dimensions={0}\n", name="wrapped")
    update = "  %update = ((f32[8,4]), f32[2,4], u32[]) async-update(%start)\n" if "%update" in done else ""
    text = program(wrapped, f"  %start = {start}\n", update, between, f"  %done = {done}\n")
    assert find_transfers(parse(text)) == (Transfer(kind, source, shapes, 1, sent, across=bool(between)),)


def test_a_loop_that_says_no_number_counts_once_and_says_so() -> None:
    text = program(body(permute("keys", "f32[8,4]", f"{LAYER}/hop/ppermute")), loop("body", "", None))
    (found,) = find_transfers(parse(text))
    assert found.times == 1
    assert found.source.endswith("counted once)")


def test_an_unscheduled_program_is_refused() -> None:
    with pytest.raises(RingRLError, match="no schedule"):
        find_transfers(parse(program("").replace(", is_scheduled=true", "")))


@pytest.mark.parametrize(
    ("kind", "place", "loop_place", "floats", "words"),
    [
        ("collective-permute", f"{BACKWARD}/attention/hop/ppermute", "", 4, "ring: keys, values and their gradients"),
        ("collective-permute", f"{BACKWARD}/attention/hop/ppermute", "", 2, "ring: keys and values, backward"),
        ("all-to-all", f"{LAYER}/attention/all_to_all", "", 1, "heads exchanged, forward"),
        ("all-gather", f"{LAYER}/attention/all_gather", "", 0, "labels of all heads' tokens, forward"),
        ("all-gather", f"{STEP}/jvp()/all_gather", "", 1, "parameters of embedding and output, forward"),
        ("all-gather", f"{BACKWARD}/rematted_computation/all_gather", "", 1, "parameters of a layer, forward again"),
        ("all-reduce", "", f"{STEP}/transpose(jvp())/while", 1, "gradients of parameters of a layer"),
        ("all-reduce", "jit(train_step)/optimizer/reduce_sum", "", 1, "norms"),
        ("all-gather", f"{STEP}/jvp()/while/body/closed_call/some/thing", "", 1, "some/thing"),
    ],
)
def test_places_in_words(kind: str, place: str, loop_place: str, floats: int, words: str) -> None:
    assert describe_transfer(kind, place, loop_place, floats).startswith(words)
