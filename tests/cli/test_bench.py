"""`ringrl bench attention`: what it measures, leaves behind and refuses."""

import functools
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from ringrl.cli.attention_benchmark import BLOCKWISE, JAX_DENSE, RING, ZIGZAG, Problem, largest_work, published_ring
from ringrl.ops import AttentionConfig, Layout, attention
from ringrl.parallel import make_mesh

SMALL = ("bench", "attention", "devices=[4]", "tokens=[128,256]", "heads=2", "head_size=8", "block_size=16")


@pytest.mark.scale
def test_it_measures_every_size(ringrl, tmp_path: Path) -> None:
    outcome = ringrl(*SMALL, "repeats=1", "published=false", "dense_up_to=128")
    assert outcome.code == 0, outcome.err
    [folder] = (tmp_path / "runs" / "bench" / "attention").iterdir()
    results = json.loads((folder / "bench.json").read_text())
    assert results["machine"]["device"] == "cpu"
    assert [problem["tokens"] for problem in results["problems"]] == [128, 256]
    short, long = (problem["candidates"] for problem in results["problems"])
    assert set(short) == {RING, ZIGZAG, BLOCKWISE, JAX_DENSE}
    assert set(long) == {RING, ZIGZAG, BLOCKWISE}
    for found in (*short.values(), *long.values()):
        assert found["seconds"] > 0
        assert found["temporary_mib"] > 0
    assert "blockwise, one device" in outcome.out
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


@pytest.mark.scale
def test_memory_alone_takes_no_time(ringrl, tmp_path: Path) -> None:
    outcome = ringrl(*SMALL, "tokens=[128]", "repeats=0", "published=false", "one_device=false", "dtypes=[bfloat16]")
    assert outcome.code == 0, outcome.err
    [folder] = (tmp_path / "runs" / "bench" / "attention").iterdir()
    [problem] = json.loads((folder / "bench.json").read_text())["problems"]
    assert problem["dtype"] == "bfloat16"
    assert set(problem["candidates"][RING]) == {"temporary_mib"}


def test_work_is_counted_from_what_is_skipped() -> None:
    """Eight blocks a device: the last of four contiguous devices meets 24 to 32 key blocks with each of its eight."""
    problem = Problem(devices=4, tokens=512, dtype="float32", heads=1, head_size=4, block_size=16)
    assert largest_work(problem, Layout.contiguous) == sum(range(25, 33))
    assert largest_work(problem, Layout.zigzag) == 32 * 33 // 2 // 4
    assert problem.flops == 7 * 2 * 4 * 512 * 513 / 2


def test_the_published_ring_computes_what_ours_does() -> None:
    """Output and gradients: else the benchmark would compare different things."""
    problem = Problem(devices=4, tokens=64, dtype="float32", heads=2, head_size=8, block_size=8)
    arrays = np.random.default_rng(0).normal(size=(4, *problem.shape)).astype(np.float32)

    def results(run) -> list[jax.Array]:
        @jax.jit
        def both(query, key, value, output_gradient):
            output, pull_back = jax.vjp(run, query, key, value)
            return [output, *pull_back(output_gradient)]

        return both(*arrays)

    with jax.numpy_dtype_promotion("standard"):  # the package multiplies booleans by floats
        found = results(published_ring(problem, make_mesh(ring=problem.devices)))
    expected = results(functools.partial(attention, config=AttentionConfig("dense")))
    for name, one, other in zip(("output", "query", "key", "value"), found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tokens=[100]",), "tokens=100 on 4 devices do not divide"),
        (("devices=[]",), "devices, tokens and dtypes each need a value"),
        (("devices=[0]",), "bench: devices=0: use at least 1."),
        (("tokens=[128,0]",), "bench: tokens=0: use at least 1."),
        (("heads=0",), "bench: heads=0: use at least 1."),
        (("heads=-1",), "bench: heads=-1: use at least 1."),
        (("head_size=0",), "bench: head_size=0: use at least 1."),
        (("block_size=0",), "bench: block_size=0: use at least 1."),
        (("repeats=-1",), "bench: repeats=-1: use 0 (memory alone) or more."),
        (("devices=[64]", "tokens=[128]", "published=false"), "devices=64 is more than the 8 devices"),
        (("dtypes=[float8]",), "float8"),
        (("benchmark=attentoin",), "attentoin"),
    ],
)
def test_what_cannot_be_is_one_line(ringrl, words: tuple[str, ...], message: str) -> None:
    jax.devices()  # JAX has started, with eight devices
    assert message in ringrl(*SMALL, *words).error


def test_the_missing_package_is_named(ringrl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ringattention", None)
    assert "published=false" in ringrl(*SMALL).error
    assert not list(tmp_path.rglob("bench.json"))
