"""The reader of compiled programs, on small texts as compilers for CPU, TPU and GPU write them."""

import pytest

from ringrl.errors import RingRLError
from ringrl.planning.hlo.parser import ArrayType, parse, parse_type

PROGRAM = """HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8,4])->f32[8,4]}, num_partitions=4

%body (carry: (f32[8,4], s32[])) -> (f32[8,4], s32[]) {
  %carry = (f32[8,4]{1,0:T(8,128)}, s32[]) parameter(0)
  %keys = f32[8,4]{1,0:T(8,128)} get-tuple-element(%carry), index=0
  %start = (f32[8,4]{1,0}, f32[8,4]{1,0}, u32[]) collective-permute-start(%keys), source_target_pairs={{0,1},{1,1}}
  %done = f32[8,4]{1,0} collective-permute-done(%start), metadata={op_name="jit(f)/hop"}
  %gemm = f32[8,8]{1,0} custom-call(f32[8,4]{1,0} %done, (s32[]) %tuple), custom_call_target="__cublas$gemm"
  ROOT %next = (f32[8,4]{1,0}, s32[]) tuple(%done, %gemm)
}

%compare_all (a: s32[], b: s32[]) -> pred[] {
  ROOT %less = pred[] compare(%a, %b), direction=LT
}

%condition (carry: (f32[8,4], s32[])) -> pred[] {
  %bound = s32[] constant(7)
  ROOT %continue = pred[] fusion(%count, %bound), kind=kLoop, calls=%compare_all
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0} parameter(0)
  %loop = (f32[8,4]{1,0}, s32[]) while(%x), condition=%condition, body=%body
  ROOT %either = f32[8,4]{1,0} conditional(%p, %loop), branch_computations={%body, %condition}
}
"""


def test_a_module() -> None:
    module = parse(PROGRAM)
    assert list(module.computations) == ["body", "compare_all", "condition", "main"], "what is called stands first"
    assert (module.entry, module.partitions, module.scheduled, module.tiled) == ("main", 4, True, True)
    assert module.body("elsewhere") == ()
    _, keys, start, done, gemm, _ = module.body("body")
    assert (keys.index, keys.type.arrays) == (0, (ArrayType("f32", (8, 4)),))
    assert (start.collective, start.permuted, done.collective) == ("collective-permute", 1, None)
    assert (start.scope, done.scope) == ("", "jit(f)/hop")
    assert (gemm.operands, gemm.library) == (("done", "tuple"), "__cublas$gemm"), "types among operands are no names"
    _, loop, either = module.body("main")
    assert (loop.called, loop.condition, either.called) == (("body",), "condition", ("body", "condition"))


def test_a_loop_runs_as_often_as_its_condition_or_the_compiler_says() -> None:
    module = parse(PROGRAM)
    assert module.trip_count(module.body("main")[1]) == 7
    noted = parse(PROGRAM.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"3"}}'))
    assert noted.trip_count(noted.body("main")[1]) == 3
    unknown = parse(PROGRAM.replace("constant(7)", "parameter(0)"))
    assert unknown.trip_count(unknown.body("main")[1]) is None


@pytest.mark.parametrize("text", ["module @jit_step {}", "", PROGRAM.replace("ENTRY ", "")])
def test_what_is_no_compiled_program_is_refused(text: str) -> None:
    with pytest.raises(RingRLError, match="no compiled program"):
        parse(text)


@pytest.mark.parametrize(
    ("result", "tiled", "expected"),
    [
        ("f32[3,5]{1,0}", False, [60]),
        ("(bf16[2]{0}, (s32[], pred[3]{0}), /*index=2*/f8e4m3fn[4]{0})", False, [4, 4, 3, 4]),
        ("bf16[1,9,130]{2,1,0:T(8,128)(2,1)}", True, [16 * 256 * 2]),
        ("f32[9,130]{0,1:T(8,128)}", True, [128 * 136 * 4]),
        ("(f32[8,128]{1,0:T(8,128)S(1)}, u32[]{:S(2)})", True, [0, 0]),
        ("(f32[8]{0:S(5)}, f32[8]{0:S(1)})", False, [0, 32]),  # the host's; the first is a GPU's for collectives
    ],
)
def test_bytes_of_types(result: str, tiled: bool, expected: list[int]) -> None:
    assert [array.allocated_bytes(tiled) for array in parse_type(result).arrays] == expected


def test_elements_of_nested_tuples() -> None:
    result = "((f32[2,3]{1,0:T(2,128)(2,1)}, s32[]), /*index=1*/f32[4], (), (f32[5], (f32[6])))"
    found = parse_type(result)
    names = [[str(array) for array in found.arrays[found.element(index)]] for index in range(4)]
    assert names == [["f32[2,3]", "s32[]"], ["f32[4]"], [], ["f32[5]", "f32[6]"]]
