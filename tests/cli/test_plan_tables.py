"""The statements of a plan's output: only reports of a compiler, never predictions about a run."""

import dataclasses

import pytest
from rich.console import Console

from ringrl.cli import plan_tables as tables
from ringrl.ops import AttentionConfig
from ringrl.planning.cluster.targets import Target
from ringrl.planning.plan import Buffer, Memory, Plan, Report, Transfer
from ringrl.planning.search import Candidate, SearchResult, search_context
from ringrl.training.config import Precision, TrainingConfig

GIB = 2**30
K = 1024
BF16 = TrainingConfig(batch_size=1, precision=Precision.bfloat16)
TPU = Plan(Target("tpu_v4_1024", "v4:8x8x8", 30 * GIB), 4 * K, attention=AttentionConfig("ring"), training=BF16)
GPU = dataclasses.replace(TPU, target=Target("a100x8", "a100:8", 75 * GIB))
MEMORY = Memory(arguments=4 * GIB, outputs=3 * GIB, aliased=2 * GIB, temporaries=12 * GIB, host=5 * GIB)
TRANSFERS = (
    Transfer("collective-permute", "ring: layers/attention[1]", ("bf16[1]",), 60, 3.0 * GIB, across=True),
    Transfer("collective-permute", "ring: layers/positions", ("s32[1]",), 4, 1.0, across=False),
    Transfer("collective-permute", "ring: home", ("f32[1]",), 2, 1.0, across=False, due=False),
    Transfer("all-gather", "parameters", ("f32[1]",), 7, 1.0, across=False),
)


def accepted(tokens, memory=MEMORY, transfers=TRANSFERS, compilers=None, fits=True, limit=30 * GIB):
    compilers = compilers or {"jax": "0.10.2", "libtpu": "0.0.52"}
    return Report(tokens, fits, "", memory, limit, (), transfers, compilers=compilers)


def refused(tokens, line="RESOURCE_EXHAUSTED: too much."):
    return Report(tokens, False, line, None, 30 * GIB, compilers={"jax": "0.10.2", "libtpu": "0.0.52"})


def rows(table):
    """Cells by row, stripped."""
    columns = [[getattr(cell, "plain", cell) for cell in column.cells] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def printed(table, width=160):
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_a_tpu_s_verdict_names_both_contexts_its_compiler_and_the_topology():
    assert tables.verdict(TPU, accepted(32_768 * K), refused(65_536 * K)) == (
        "Accepted at 32,768K tokens, refused at 65,536K, by libtpu 0.0.52 with jax 0.10.2 for v4:8x8x8: "
        "17.00 of 30.00 GiB a device; the schedule puts 60 of 64 hops across compute."
    )
    assert "refused" not in tables.verdict(TPU, accepted(32_768 * K))


def test_a_refusal_is_the_compiler_s_own():
    assert tables.verdict(TPU, refused(64 * K)) == (
        "Refused at 64K tokens by libtpu 0.0.52 with jax 0.10.2 for v4:8x8x8: RESOURCE_EXHAUSTED: too much."
    )


def test_a_gpu_s_verdict_is_of_bytes_for_its_compiler_never_refuses():
    compilers = {"jax": "0.11.2", "jax-cuda13-pjrt": "0.11.2"}
    small = accepted(K, transfers=(), compilers=compilers)
    large = dataclasses.replace(small, tokens=2 * K, accepted=False, memory=Memory(40 * GIB, 0, 0, 0))
    assert tables.verdict(GPU, small, large) == (
        "The compiler (jax-cuda13-pjrt 0.11.2 with jax 0.11.2 for a100:8) reports 17.00 of 30.00 GiB a device at 1K "
        "tokens, within the limit, and 40.00 GiB at 2K, over it."
    )
    assert "40.00 of 30.00 GiB a device at 2K tokens, over the limit." in tables.verdict(GPU, large)
    assert "ccepted" not in tables.verdict(GPU, small, large)


def test_a_tpu_program_over_a_limit_of_the_user_s_was_not_refused():
    said = tables.verdict(TPU, accepted(K, fits=False, limit=10 * GIB))
    assert "reports 17.00 of 10.00 GiB a device at 1K tokens, over the limit" in said
    assert "efused" not in said


@pytest.mark.parametrize("threshold", [0, 4096, 2**40])
def test_a_search_s_verdict_says_how_it_ended(threshold):
    found = search_context(
        TPU, lambda plan: accepted(plan.tokens) if plan.tokens <= threshold else refused(plan.tokens), 4096
    )
    said = tables.found_verdict(TPU, found)
    assert ("Not even the shortest chain fits. Refused at 512 tokens" in said) == (threshold == 0)
    assert ("Accepted at 4K tokens, refused at 8K," in said) == (threshold == 4096)
    assert ("2,147,483,647 tokens the most" in said) == (threshold == 2**40)


def test_no_words_promise_a_run():
    found = SearchResult(accepted(4 * K), refused(8 * K), (refused(8 * K), accepted(4 * K)))
    candidates = [Candidate("ring", TPU, accepted(4 * K)), Candidate("ulysses", TPU, reason="no heads")]
    said = [
        tables.verdict(TPU, accepted(4 * K), refused(8 * K)),
        tables.verdict(GPU, accepted(4 * K)),
        tables.found_verdict(TPU, found),
        tables.formula_verdict(TPU, 3.0 * GIB, 8 * K),
        tables.paper_line(TPU, 32_768 * K, "7b"),
        *map(printed, (tables.search_table(TPU, found), tables.candidates_table("strategy", candidates))),
        *map(printed, (tables.memory_table(accepted(K)), tables.transfers_table(accepted(K)))),
    ]
    for words in said:
        assert not any(word in words.lower() for word in ("hidden", "mfu", "speed", "tokens/s", "faster", "will run"))


def test_memory_by_kind_adds_up():
    assert rows(tables.memory_table(accepted(K))) == [
        ["arguments", "4.00", "13%"],
        ["temporaries", "12.00", "40%"],
        ["outputs beyond aliased", "1.00", "3%"],
        ["code", "0.00", "0%"],
        ["together", "17.00", "57%"],
        ["of the host", "5.00", ""],
    ]
    assert rows(tables.memory_table(refused(K))) == []


def test_places_with_brackets_are_printed_as_they_are():
    buffer = Buffer(GIB, "bf16[32,1,8192]", "[bold]layers[/x]", 3)
    report = dataclasses.replace(accepted(K), buffers=(buffer,))
    shown = printed(tables.buffers_table(report))
    assert all(words in shown for words in ("[bold]layers[/x]", "bf16[32,1,8192]", "3.000"))
    assert "layers/attention[1]" in printed(tables.transfers_table(report))


def test_transfers_lie_across_or_not_or_have_nothing_to_lie_across():
    assert [(row[0], row[2], row[3], row[4]) for row in rows(tables.transfers_table(accepted(K)))] == [
        ("collective-permute", "60", "3.000", "yes"),
        ("collective-permute", "4", "0.000", "no"),
        ("collective-permute", "2", "0.000", "—"),
        ("all-gather", "7", "0.000", "no"),
    ]
    assert tables.format_hops(accepted(K)) == "60 of 64 hops"  # neither the way home nor parameters
    assert tables.format_hops(accepted(K, transfers=())) == ""


def test_a_search_has_a_row_a_context_the_shortest_first():
    told = "x HLO temporaries (54.13G) exceeds available HBM (15.25G)"
    reports = (refused(4096 * K, told), refused(2048 * K), accepted(1024 * K), accepted(1536 * K, fits=False))
    assert rows(tables.search_table(TPU, SearchResult(reports[2], reports[1], reports))) == [
        ["1,024K", "1,048.6", "17.00", "57%", "accepted"],
        ["1,536K", "1,572.9", "17.00", "57%", "over the limit"],
        ["2,048K", "2,097.2", "", "", "refused"],
        ["4,096K", "4,194.3", "≥ 54.13", "180%", "refused"],
    ]


def test_choices_have_a_row_each_and_a_reason_where_nobody_was_asked():
    candidates = [Candidate("ring", TPU, accepted(K)), Candidate("ulysses", TPU, reason="2 heads [of 3]")]
    assert rows(tables.candidates_table("strategy", candidates)) == [
        ["ring", "17.00", "57%", "60 of 64 hops", "accepted"],
        ["ulysses", "", "", "", "not asked: 2 heads [of 3]"],
    ]


def test_every_line_of_the_formula_says_so():
    table = tables.formula_table(TPU, {"parameters": 1.0 * GIB, "layer inputs": 2.0 * GIB})
    assert [row[1] for row in rows(table)] == ["1.00", "2.00", "3.00"]
    assert all("by the formula" in row[0] for row in rows(table))
    lines = [
        tables.formula_verdict(TPU, 3.0 * GIB),
        tables.formula_verdict(TPU, 31.0 * GIB, 0),
        tables.paper_line(TPU, 8192 * K, "7b", by_formula=True),
    ]
    assert all("by the formula" in line for line in lines)
    assert "3.00 of 30.00 GiB a device at 4K tokens on v4:8x8x8, within the limit" in lines[0]
    assert "over the limit" in lines[1]
    assert "no chain fits" in lines[1]


def test_the_paper_is_named_with_both_precisions():
    assert tables.paper_line(TPU, 32_768 * K, "7b") == (
        "The paper's Table 3 has 8,192K here, in full precision; 32,768K in bfloat16 is 4 times."
    )
    assert tables.paper_line(TPU, 32_768 * K, "tiny") is None
