"""The benchmark for NVIDIA, where there is none: it says so, and the ring that it plays is right."""

import runpy
from pathlib import Path

import pytest

from ringrl.ops import Kernel

SCRIPT = Path(__file__).parents[2] / "experiments" / "attention" / "gpu_kernels.py"


@pytest.fixture(scope="module")
def benchmark() -> dict:
    return runpy.run_path(str(SCRIPT))


def test_it_needs_an_nvidia_gpu(
    benchmark: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", [str(SCRIPT)])
    assert benchmark["main"]() == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "gpu_kernels: needs an NVIDIA GPU (Ampere or later) with cuDNN; here is: cpu.\n"


@pytest.mark.scale
def test_the_ring_that_it_plays_is_right(benchmark: dict) -> None:
    found = benchmark["errors"](Kernel.xla, 64, 16)
    assert set(found) == {"contiguous", "striped", "zigzag"}
    assert max(error for layout in found.values() for error in layout) < 0.01
