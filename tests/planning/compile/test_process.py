"""Compilation of a plan in a separate process: results, caching, and broken or missing compilers."""

import dataclasses
import subprocess
from pathlib import Path

import jax
import pytest

from ringrl.agents import AgentConfig
from ringrl.errors import RingRLError
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.planning.cluster.targets import Target, fill_specification
from ringrl.planning.compile import process, worker
from ringrl.planning.plan import Plan, Report
from ringrl.training.config import TrainingConfig

QUICK = {"xla_backend_optimization_level": 0}
PLAN = Plan(
    fill_specification(Target(topology="cpu:2")),
    128,
    AgentConfig(loss_block_size=32),
    ModelConfig(layers=1, width=16, heads=2, remat="layer", unroll_layers=False),
    AttentionConfig("ring", query_block_size=32, key_block_size=32),
    training=TrainingConfig(batch_size=1),
    compiler_options=QUICK,
)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """Compiled in this process, which has more devices than the plan asks for; and where it is kept."""
    cache = tmp_path_factory.mktemp("plans")
    return worker.compile_here(PLAN, cache), cache


def answer(monkeypatch: pytest.MonkeyPatch, code: int, stderr: str) -> None:
    done = subprocess.CompletedProcess([], code, "", stderr)
    monkeypatch.setattr(process, "run_apart", lambda *words: done)


@pytest.mark.scale
def test_the_report_is_the_compilers(first: tuple[Report, Path]) -> None:
    report, cache = first
    agent = worker.planned_agent(PLAN)
    stats = worker.lower_step(agent, PLAN.training, 1, 128).compile(compiler_options=QUICK).memory_analysis()
    assert report.accepted
    assert report.memory is not None
    assert report.memory.temporaries == stats.temp_size_in_bytes
    assert report.memory.arguments == stats.argument_size_in_bytes
    assert report.compilers["jax"] == jax.__version__
    assert {one.kind for one in report.transfers} >= {"collective-permute", "all-gather", "reduce-scatter"}
    assert [path.stem for path in cache.iterdir()] == [report.program]


@pytest.mark.scale
def test_the_same_program_is_not_compiled_twice(first: tuple[Report, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    report, cache = first
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *_, **__: pytest.fail("compiled again"))
    assert worker.compile_here(PLAN, cache) == dataclasses.replace(report, cached=True)


@pytest.mark.scale
@pytest.mark.parametrize("change", ["order", "flags"])
def test_another_order_of_devices_or_other_flags_are_compiled_again(
    first: tuple[Report, Path], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    report, cache = first
    if change == "flags":
        monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_latency_hiding_scheduler=false")
    else:
        monkeypatch.setattr(worker, "_order", lambda agent: "[1, 0]")
    other = worker.compile_here(PLAN, cache)
    assert not other.cached
    assert other.program != report.program
    assert bool(other.environment) == (change == "flags")


@pytest.mark.scale
def test_a_limit_of_the_users_judges_what_is_known(first: tuple[Report, Path]) -> None:
    report, cache = first
    assert report.memory is not None
    target = dataclasses.replace(PLAN.target, memory=report.memory.total - 1)
    judged = worker.compile_here(dataclasses.replace(PLAN, target=target), cache)
    assert judged.cached
    assert not judged.accepted
    assert "the compiler reports" in judged.refusal


@pytest.mark.parametrize("content", ["", "{}", "[1", '{"tokens": 1, "unknown": 2, "memory": null}'])
def test_what_is_kept_and_damaged_counts_as_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "kept.json").write_text(content)
    assert worker._read(tmp_path / "kept.json") is None


@pytest.mark.scale
def test_a_refusal_is_a_result_and_another_fault_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm."

    def refuse(*_, **__):
        raise jax.errors.JaxRuntimeError(f"{line}\nmore")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    report = worker.compile_here(PLAN)
    assert not report.accepted
    assert report.memory is None
    assert report.refusal == line
    line = "INTERNAL: a bug"
    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
        worker.compile_here(PLAN)


@pytest.mark.scale
def test_a_product_that_cannot_be_tried_goes_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    compile, asked = jax.stages.Lowered.compile, []

    def untried(self, compiler_options=None):
        asked.append(compiler_options)
        if len(asked) == 1:
            raise jax.errors.JaxRuntimeError("INTERNAL: Couldn't find output tile sizes that satisfy hlo: %dot")
        return compile(self, compiler_options=QUICK)

    monkeypatch.setattr(jax.stages.Lowered, "compile", untried)
    report = worker.compile_here(PLAN)
    assert report.accepted
    assert report.flags == {**QUICK, "xla_gpu_enable_triton_gemm": False} == asked[1]


def test_a_crash_says_the_last_words_and_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer(monkeypatch, 1, "Traceback (most recent call last):\njax.errors.JaxRuntimeError: INTERNAL: oh\n  where\n")
    with pytest.raises(RingRLError, match="JaxRuntimeError: INTERNAL: oh") as caught:
        process.compile_plan(PLAN, scratch=tmp_path)
    [kept] = tmp_path.iterdir()
    assert f"-m ringrl.planning.compile.worker {kept} report.json" in str(caught.value)
    answer(monkeypatch, -6, "F0000 Check failed: oh\n")
    with pytest.raises(RingRLError, match=r"signal 6\): F0000 Check failed: oh"):
        process.compile_plan(PLAN)


def test_a_fault_of_the_users_comes_back_as_it_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, process.ERROR_EXIT_CODE, "a warning\nattention: 3 heads do not divide\n")
    with pytest.raises(RingRLError, match=r"^attention: 3 heads do not divide$"):
        process.compile_plan(PLAN)


def test_a_missing_compiler_is_seen_before_anything_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(process, "COMPILERS", tmp_path)
    monkeypatch.setattr(process.sys, "path", [str(tmp_path)])
    tpu, gpu = (fill_specification(Target(topology=topology)) for topology in ("v4:2x2x1", "h100:8"))
    assert not process.has_compiler(tpu)
    assert not process.has_compiler(gpu)
    (tmp_path / "libtpu").mkdir()
    assert process.has_compiler(tpu)
    assert not process.has_compiler(gpu)


def test_a_plugin_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package == "jax-cuda12-pjrt":
            raise worker.importlib.metadata.PackageNotFoundError
        return "0.9.0"

    monkeypatch.setattr(worker.importlib.metadata, "version", version)
    with pytest.raises(RingRLError, match=r"its CUDA plugin 0\.9\.0: install the same version"):
        worker._compilers("cuda")
