"""The planner's experiments run: small, and without writing figures."""

import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.scale
@pytest.mark.parametrize("name", ["max_context", "ablation", "more_context", "memory_formula", "plan_validation"])
def test_the_experiment_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGRL_DATA", str(tmp_path))
    results = EXPERIMENTS / name / "results"
    written = sorted(results.glob("*"))
    command = [sys.executable, str(EXPERIMENTS / name / "run.py"), "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert sorted(results.glob("*")) == written
