"""Assignment of a GPU to each process of a sweep, with simulated GPUs: visibility, locks and order."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import hydra.utils
import pytest
from omegaconf import OmegaConf

from ringrl.cli import gpus as gpus_module
from ringrl.cli.gpus import (
    JOBLIB,
    VISIBLE,
    LimitJobs,
    claim_gpu,
    installed_gpus,
    uses_gpus,
    visible_gpus,
    wait_for_lock,
)
from ringrl.errors import RingRLError

ONE_DEVICE = {"data": 1, "fsdp": 1, "ring": 1, "head": 1, "explain": False}
A, B, C = "GPU-aaaa1111-0", "GPU-bbbb2222-0", "GPU-cccc3333-0"
LISTING = f"""GPU 0: NVIDIA H100 (UUID: {A})
GPU 1: NVIDIA H100 (UUID: {B})
  MIG 3g.40gb     Device  0: (UUID: MIG-1111-aa)
  MIG 3g.40gb     Device  1: (UUID: MIG-2222-bb)
"""
HOLD = """
import sys
from pathlib import Path
from ringrl.cli.gpus import wait_for_lock
print(wait_for_lock({name: name for name in sys.argv[2:]}, Path(sys.argv[1]), print), flush=True)
input()
"""


@pytest.fixture(autouse=True)
def no_claim(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that has claimed nothing, with its own temporary folder and JAX's plugin."""
    monkeypatch.setattr(gpus_module, "_claimed", [])
    monkeypatch.setattr(gpus_module.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpus_module, "_POLL_SECONDS", 0.01)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv(VISIBLE, "")  # restored afterwards, for claiming sets it
    monkeypatch.delenv(VISIBLE)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)


@pytest.fixture
def nvidia_smi(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTING}END\n")
    program.chmod(0o755)


@pytest.fixture
def holder(tmp_path: Path):
    """`holder("0", "1")` starts another process that holds one of these GPUs until it is terminated."""
    processes = []

    def hold(*names: str) -> tuple[subprocess.Popen, str]:
        folder = gpus_module.lock_folder()
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), *names],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield hold
    for process in processes:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_parts_of_a_gpu_stand_for_the_whole(nvidia_smi) -> None:
    assert installed_gpus() == [A, "MIG-1111-aa", "MIG-2222-bb"]


def test_without_nvidia_smi_the_kernel_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert installed_gpus(tmp_path / "nothing") == []
    for name in ("0000:3b:00.0", "0000:af:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    assert installed_gpus(tmp_path / "gpus") == ["0", "1"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, {A: A, B: B, C: C}),
        ("", {}),
        ("-1", {}),
        ("NoDevFiles", {}),
        ("2,0", {"2": C, "0": A}),
        ("1,-1,0", {"1": B}),
        ("7", {"7": "7"}),
        (f"{B}", {B: B}),
        ("GPU-aaaa, 1", {"GPU-aaaa": A, "1": B}),
        ("MIG-GPU-1/2/3", {"MIG-GPU-1/2/3": "MIG-GPU-1/2/3"}),
    ],
)
def test_what_is_visible(value: str | None, expected: dict[str, str]) -> None:
    environment = {} if value is None else {VISIBLE: value}
    assert visible_gpus(environment, [A, B, C]) == expected


def test_jax_needs_its_plugin_and_may_be_told_to_leave_gpus_alone(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(gpus_module, "_CUDA_PLUGINS", ("no_such_namespace.plugin",))
    assert not uses_gpus({})
    monkeypatch.setattr(gpus_module, "_CUDA_PLUGINS", ("no_such_namespace.plugin", "jax"))
    assert [uses_gpus({"JAX_PLATFORMS": text}) for text in ("", "cuda,cpu", "gpu", "cpu", "tpu,cpu")] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_processes_get_different_gpus_and_give_them_back_when_they_die(holder) -> None:
    first, name = holder("0", "1")
    assert (name, holder("0", "1")[1]) == ("0", "1")
    first.kill()
    first.wait()
    assert wait_for_lock({"0": "0", "1": "1"}, gpus_module.lock_folder(), print) == "0"


def test_who_finds_all_taken_says_so_once_and_waits(holder) -> None:
    process, name = holder("0")
    assert name == "0"
    said, found = [], []
    names = {"0": "0"}
    waiter = threading.Thread(target=lambda: found.append(wait_for_lock(names, gpus_module.lock_folder(), said.append)))
    waiter.start()
    while not said:
        time.sleep(0.01)
    time.sleep(0.05)
    assert not found
    process.kill()
    waiter.join(timeout=60)
    assert found == ["0"]
    assert len(said) == 1
    assert "waiting for a GPU: all are taken by other jobs of sweeps (0;" in said[0]


def test_an_index_and_a_uuid_of_the_same_gpu_meet(holder, monkeypatch, tmp_path: Path) -> None:
    assert holder(A)[1] == A
    monkeypatch.setattr(gpus_module, "installed_gpus", lambda: [A, B])
    monkeypatch.setattr(gpus_module, "_CUDA_PLUGINS", ("jax",))
    monkeypatch.setenv(VISIBLE, "0,1")
    assert claim_gpu(JOBLIB, ONE_DEVICE, print) == "1"
    assert os.environ[VISIBLE] == "1"


def test_a_process_keeps_its_gpu_for_all_its_jobs(nvidia_smi, monkeypatch) -> None:
    monkeypatch.setattr(gpus_module, "_CUDA_PLUGINS", ("jax",))
    assert [claim_gpu(JOBLIB, ONE_DEVICE, print) for _ in range(2)] == [A, A]
    assert os.environ[VISIBLE] == A
    with pytest.raises(RingRLError, match=rf"^mesh\.ring=-1 in a process of a sweep that was given the one GPU {A}"):
        claim_gpu(JOBLIB, {**ONE_DEVICE, "ring": -1}, print)


@pytest.mark.parametrize(
    ("launcher", "mesh", "environment"),
    [
        ("hydra._internal.core_plugins.basic_launcher.BasicLauncher", ONE_DEVICE, {}),
        ("hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher", ONE_DEVICE, {}),
        ("hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher", ONE_DEVICE, {}),
        (JOBLIB, None, {}),
        (JOBLIB, {**ONE_DEVICE, "fsdp": 2}, {}),
        (JOBLIB, {**ONE_DEVICE, "ring": -1}, {}),
        (JOBLIB, ONE_DEVICE, {VISIBLE: ""}),
        (JOBLIB, ONE_DEVICE, {"JAX_PLATFORMS": "cpu"}),
    ],
)
def test_nothing_is_claimed_where_nothing_is_shared(nvidia_smi, monkeypatch, launcher, mesh, environment) -> None:
    monkeypatch.setattr(gpus_module, "_CUDA_PLUGINS", ("jax",))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert claim_gpu(launcher, mesh, print) is None
    assert os.environ.get(VISIBLE) == environment.get(VISIBLE)


def test_the_launcher_has_the_plugins_own_name() -> None:
    assert hydra.utils.get_class(JOBLIB).__name__ == "JoblibLauncher"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(gpus_module.tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(RingRLError, match=r"Cannot make .*ringrl-gpus"):
        gpus_module.lock_folder()


def test_a_link_in_place_of_a_lock_is_refused(tmp_path: Path) -> None:
    folder = gpus_module.lock_folder()
    (tmp_path / "other").write_text("")
    (folder / "0").symlink_to(tmp_path / "other")
    with pytest.raises(RingRLError, match=r"Cannot lock a GPU by .*/0"):
        wait_for_lock({"0": "0"}, folder, print)


@pytest.mark.parametrize(
    ("jobs", "mesh", "expected"),
    [(-1, {}, 3), (8, {}, 3), (2, {}, 2), (None, {}, None), (8, {"ring": -1}, 8)],
)
def test_joblib_runs_no_more_jobs_than_gpus(nvidia_smi, monkeypatch, capsys, jobs, mesh, expected) -> None:
    monkeypatch.setattr(gpus_module, "_CUDA_PLUGINS", ("jax",))
    monkeypatch.setattr(gpus_module.os, "cpu_count", lambda: 16)
    config = OmegaConf.create(
        {"mesh": {**ONE_DEVICE, **mesh}, "hydra": {"launcher": {"_target_": JOBLIB, "n_jobs": jobs}}}
    )
    OmegaConf.set_readonly(config, True)
    LimitJobs().on_multirun_start(config)
    assert config.hydra.launcher.n_jobs == expected
    assert ("jobs at once: 3, one a GPU" in capsys.readouterr().out) == (jobs != expected)


@pytest.mark.slow
def test_jobs_of_a_sweep_take_what_another_sweep_left(tmp_path: Path, holder) -> None:
    """Two jobs, in processes of their own, get one each of the GPUs that are free (or one after the other the same)."""
    assert holder("0")[1] == "0"
    plugin = tmp_path / "plugins" / "jax_plugins" / "xla_cuda13"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").write_text("def initialize(): pass\n")
    environment = {
        **os.environ, VISIBLE: "0,1,2", "TMPDIR": str(tmp_path), "PYTHONPATH": str(tmp_path / "plugins"),
        "GLIBC_TUNABLES": "",
    }  # fmt: skip
    words = ["eval", "-m", "checkpoint=no_run,no_other", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = subprocess.run(
        [sys.executable, "-m", "ringrl.cli", *words, f"hydra.sweep.dir={tmp_path / 'sweep'}"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("ringrl: error: ") == 2
    assert "waiting" not in done.stdout
    for job in ("0", "1"):
        log = (tmp_path / "sweep" / job / "eval.log").read_text()
        assert re.search(r"this job's GPU: [12]\n", log), log
