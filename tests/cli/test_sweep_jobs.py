"""Jobs of a sweep: assignment of GPUs, requeueing, and jobs in submitit's processes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ringrl.cli import job as job_module
from ringrl.cli.failures import REQUEUE
from ringrl.errors import Preempted


def test_jobs_of_a_sweep_ask_for_a_gpu_and_a_single_run_does_not(ringrl, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(job_module, "claim_gpu", lambda launcher, mesh, say: asked.append((launcher, dict(mesh))))
    assert "no_run" in ringrl("eval", "checkpoint=no_run").error
    assert asked == []
    assert ringrl("eval", "-m", "checkpoint=no_run,no_other").err.count("ringrl: error: ") == 2
    assert [(launcher.rpartition(".")[2], mesh["ring"]) for launcher, mesh in asked] == [("BasicLauncher", 1)] * 2


@pytest.fixture
def preempted(monkeypatch) -> None:
    """`ringrl eval` ends as a preempted run does."""

    def run(command, folder):
        raise Preempted("saved.")

    monkeypatch.setattr("ringrl.cli.eval.run", run)


def test_a_preempted_job_on_slurm_is_queued_again_by_submitit(ringrl, monkeypatch, preempted) -> None:
    """submitit's handler ends the process, having queued the job again."""
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR2")

    class QueuedAgain(SystemExit):
        pass

    def handle(number, frame):
        raise QueuedAgain(255)

    before = signal.signal(signal.SIGUSR2, handle)
    try:
        assert ringrl("eval", "-m", "checkpoint=one").code == 255
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_job_that_slurm_queues_again_itself_ends_all_the_same(ringrl, monkeypatch, preempted) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.delenv("SUBMITIT_PREEMPT_SIGNAL", raising=False)

    def handle(number, frame):
        raise subprocess.CalledProcessError(1, "scontrol")

    before = signal.signal(signal.SIGUSR2, handle)
    try:
        assert ringrl("eval", "-m", "checkpoint=one").code == REQUEUE
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize("words", [["checkpoint=one"], ["-m", "checkpoint=one"]])
def test_elsewhere_the_command_asks_to_be_queued_again(ringrl, preempted, words) -> None:
    outcome = ringrl("eval", *words)
    assert outcome.code == REQUEUE
    assert "preempted" in outcome.err


@pytest.mark.slow
def test_submitit_runs_jobs_in_processes_of_their_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ringrl.cli", "collect", "-m", "collection=dark_room", "episodes_per_task=1"]
    command += ["dataset=ringrl/a-v0,ringrl/b-v0", "reference_episodes=0", "hydra/launcher=submitit_local"]
    done = subprocess.run(
        [*command, f"hydra.sweep.dir={tmp_path / 'sweep'}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    jobs = sorted(file.parent for file in (tmp_path / "sweep").glob("*/summary.json"))
    assert [job.name[:16] for job in jobs] == ["dataset-ringrl-a", "dataset-ringrl-b"]
    assert all("ringrl.cli.console" in (job / "collect.log").read_text() for job in jobs)
