"""`ringrl report`, and the table at the end of a sweep, on runs written by hand."""

from pathlib import Path

import numpy as np
import pytest

from ringrl.cli.sweep_table import report_sweep
from ringrl.evaluation.rollout import Rollout
from ringrl.evaluation.summary import build_summary, write_summary


def finish(folder: Path, agent: str = "at", seed: int = 0, value: float = 1.0) -> Path:
    """A finished run of 4 environments, whose returns are around a value."""
    rows = value + np.arange(4.0)[:, None] + np.zeros((4, 3))
    found = Rollout(rows, np.full((4, 3), 5), None, np.arange(4), np.zeros(4, int))
    summary = build_summary(
        agent=agent, environment="Maze-v0", seed=seed, rollout=found, config={"seed": seed}, bootstrap_samples=50
    )
    write_summary(summary, folder)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two finished agents, an older run of one of them, and one that did not finish."""
    runs = tmp_path / "runs" / "train" / "mine"
    finish(runs / "2026-11-20_10-00-00-000000_at_seed0", value=100.0)
    finish(runs / "2026-11-21_10-00-00-000000_at_seed0", value=5.0)
    finish(runs / "2026-11-21_11-00-00-000000" / "dt_seed0", "dt")
    (runs / "2026-11-22_10-00-00-000000_at_seed0" / "checkpoints").mkdir(parents=True)
    return runs


def test_a_name_reports_its_latest_finished_runs(ringrl, runs: Path) -> None:
    outcome = ringrl("report", "name=mine")
    assert outcome.code == 0, outcome.err
    assert "6.50 [" in outcome.out
    assert "101.5" not in outcome.out, "a later run has the same agent, seed and label"
    assert "AT - DT" in outcome.out
    assert "4.00 [4.00, 4.00]" in outcome.out, "the difference, paired"
    lines = outcome.out.splitlines()
    [unfinished] = [line for line in lines if line.startswith("not finished")]
    assert unfinished.endswith(": 1: 2026-11-22_10-00-00-000000_at_seed0.")
    [older] = [line for line in lines if line.startswith("left out")]
    assert older.startswith("left out: 1 of runs/train/mine ")
    [folder] = Path("runs/report/mine").iterdir()
    assert {"table.md", "table.csv", "figure.png", "report.log"} <= {file.name for file in folder.iterdir()}
    assert "AT - DT" in (folder / "report.log").read_text()
    everything = ringrl("report", "runs=[runs/train/mine]", "name=all", "normalized=false")
    assert everything.code == 0, everything.err
    assert "not finished" in everything.out


def test_a_name_without_a_finished_run_is_one_line(ringrl, tmp_path: Path) -> None:
    (tmp_path / "runs/train/mine/2026-11-22_10-00-00-000000_at_seed0/checkpoints").mkdir(parents=True)
    error = ringrl("report", "name=mine").error
    assert error.startswith(
        "No finished run in runs/train/mine; not finished (running, stopped or failed): 1: 2026-11-22"
    )
    [log] = tmp_path.glob("runs/report/mine/*/report.log")
    assert error in log.read_text(), "the log tells of failures too"
    assert "Traceback" not in log.read_text()
    assert "bootstrap_samples=3: a 95 % interval needs" in ringrl("report", "bootstrap_samples=3").error


def test_a_sweep_ends_with_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(tmp_path / "at_seed0", value=5.0)
    finish(tmp_path / "dt_seed0", "dt")
    (tmp_path / "dt_seed1").mkdir()
    (tmp_path / "dt_seed1" / "error.txt").write_text("No memory. (job seed=1)\n")
    report_sweep(tmp_path)
    out = capsys.readouterr().out
    assert "4.00 [4.00, 4.00]" in out
    assert "1: dt_seed1 (No memory. (job seed=1))." in out
    assert out.endswith(f"sweep folder: {tmp_path}\n")
    assert {"table.md", "table.csv", "figure.png"} <= {file.name for file in tmp_path.iterdir()}


def test_a_sweep_without_results_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "at_seed0" / "checkpoints").mkdir(parents=True)
    report_sweep(tmp_path)
    assert "not finished (running, stopped or failed): 1: at_seed0." in capsys.readouterr().out
    assert not (tmp_path / "table.md").exists()


def test_every_command_leaves_a_log_of_what_it_did(ringrl, tmp_path: Path) -> None:
    assert ringrl("data").code == 0
    [log] = tmp_path.glob("runs/data/data/*/data.log")
    assert "ended after" in log.read_text()
    assert "ringrl.cli.console" in log.read_text()
    assert "is not in" in ringrl("train", "data=dark_room", "data.name=ringrl/nothing-v0").error
    [log] = tmp_path.glob("runs/train/run/*_at_seed0/train.log")
    assert "is not in" in log.read_text()


def test_jobs_of_a_sweep_are_named_by_what_varies(ringrl, tmp_path: Path) -> None:
    words = (
        "train",
        "-m",
        "data=dark_room",
        "data.name=ringrl/nothing-v0",
        "training.optimizer.learning_rate=1e-3,1e-2",
    )
    assert ringrl(*words, "agent=dt", "hydra.sweep.dir=sweep").code == 2
    names = sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert names == ["dt_seed0_learning_rate-0.001", "dt_seed0_learning_rate-0.01"]


def test_a_sweep_over_its_own_folder_s_name_hears_of_its_failures(ringrl, tmp_path: Path) -> None:
    words = ("train", "-m", "data=dark_room", "data.name=ringrl/nothing-v0", "name=a,b")
    outcome = ringrl(*words)
    assert outcome.code == 2
    assert outcome.err.count("ringrl: error: ") == 2
    [sweep] = tmp_path.glob("runs/train/*/*")
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["at_seed0_name-a", "at_seed0_name-b"]
    assert outcome.out.count("sweep folder: ") == 1, "said once, not by Hydra's logger again"


@pytest.mark.scale
def test_a_sweep_tells_of_its_own_failures_alone(ringrl, tmp_path: Path) -> None:
    words = ("train", "-m", "data=dark_room", "data.name=ringrl/nothing-v0", "hydra.sweep.dir=sweep")
    assert ringrl(*words, "seed=0,1").err.count("ringrl: error: ") == 2
    outcome = ringrl(*words, "seed=1,2")
    assert outcome.err.count("ringrl: error: ") == 2, "not of the job with seed=0, which is no part of it"
    assert "(job " in outcome.err
    assert "seed=0)" not in outcome.err
