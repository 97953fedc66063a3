"""The experiment for one GPU, on a machine without one: it reports that, and its steps run at a small size."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "h200" / "run.py"


@pytest.fixture(scope="module")
def experiment() -> dict:
    return runpy.run_path(str(SCRIPT))


def test_it_needs_a_gpu(experiment: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("sys.argv", [str(SCRIPT)])
    assert experiment["main"]() == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "h200: needs an NVIDIA GPU; here is: cpu. --smoke runs.\n")


def test_what_does_not_run_is_one_line(experiment: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failed:
        returncode, stdout = 1, ""
        stderr = "Traceback\n  deep\njax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory\nmore"

    monkeypatch.setattr(experiment["subprocess"], "run", lambda *_, **__: Failed)
    assert experiment["in_a_process"]("dense", "layer", 64, "smoke") == {
        "error": "jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory"
    }
