"""Launching of runs: the cluster group, Hydra's launchers, and experiments/launching, with simulated programs."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
import yaml

from ringrl.cli.compose import build_command, find_conf_folder, register
from ringrl.cli.failures import REQUEUE
from ringrl.config import TrainCommand
from ringrl.errors import RingRLError

RECIPES = Path(__file__).resolve().parents[2] / "experiments" / "launching"
OF_SEVERAL = ("slurm", "kubernetes", "tpu_pod")


def compose(*overrides: str, hydra_too: bool = False):
    register(["train"])
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(find_conf_folder())):
        return hydra.compose("train", overrides=list(overrides), return_hydra_config=hydra_too)


def built(*overrides: str) -> TrainCommand:
    return build_command(TrainCommand, compose(*overrides))


@pytest.mark.parametrize("cluster", sorted(file.stem for file in (find_conf_folder() / "cluster").glob("*.yaml")))
def test_every_cluster_builds_with_and_without_an_experiment(cluster: str) -> None:
    for strategy, job in (("auto", ["data=dark_room"]), ("blockwise", ["experiment=dark_room", "agent=dt"])):
        command = built(f"cluster={cluster}", *job)
        assert command.mesh.ring == (-1 if cluster in OF_SEVERAL else 1)
        assert command.attention.strategy == ("ring" if cluster in OF_SEVERAL else strategy)


def test_one_machine_is_the_default_and_changes_nothing() -> None:
    assert (
        built("data=dark_room") == built("data=dark_room", "cluster=one_machine") == built("data=dark_room", "~cluster")
    )


def test_the_command_line_beats_the_cluster() -> None:
    command = built("experiment=dark_room", "cluster=slurm", "attention=dense", "mesh.ring=1", "mesh.fsdp=-1")
    assert (command.attention.strategy, command.mesh.ring, command.mesh.fsdp) == ("dense", 1, -1)


@pytest.mark.parametrize("launcher", ["submitit_slurm", "submitit_local", "joblib"])
def test_the_launchers_are_found(launcher: str) -> None:
    config = compose("data=dark_room", f"hydra/launcher={launcher}", hydra_too=True)
    assert hydra.utils.get_class(config.hydra.launcher["_target_"]).__name__.endswith("Launcher")


def test_a_sweep_on_slurm_is_submitit_with_one_gpu_a_job() -> None:
    launcher = compose(
        "data=dark_room", "cluster=slurm_sweep", "hydra.launcher.partition=gpu", hydra_too=True
    ).hydra.launcher
    assert launcher["_target_"] == "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
    assert (launcher.gpus_per_node, launcher.tasks_per_node, launcher.nodes) == (1, 1, 1)
    assert launcher.max_num_timeout > 0, "a job whose time is over is queued again"
    assert launcher.partition == "gpu"


def test_submitit_accepts_the_keys_and_asks_for_what_they_say() -> None:
    from submitit.slurm.slurm import _make_sbatch_string

    launcher = compose("data=dark_room", "cluster=slurm_sweep", hydra_too=True).hydra.launcher
    script = _make_sbatch_string(
        "true",
        "jobs",
        gpus_per_node=launcher.gpus_per_node,
        time=launcher.timeout_min,
        signal_delay_s=launcher.signal_delay_s,
    )
    assert "#SBATCH --gpus-per-node=1\n" in script
    assert "#SBATCH --signal=USR2@300\n" in script


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs of a cluster by name: each notes its arguments in a file of its name, and some do a little more."""
    programs = {
        "ringrl": 'exit "${EXIT_CODE:-0}"',
        "srun": 'while [[ $1 == --* ]]; do shift; done\n"$@"',
        "scontrol": "exit 0",
        "curl": 'case "${@: -1}" in\n*number) echo 2 ;;\n*) echo "$WORKERS" ;;\nesac',
        "gcloud": 'for word in "$@"; do case "$word" in --command=*) bash -c "${word#--command=}" ;; esac; done',
    }
    for name, rest in programs.items():
        note = f"import json, sys; open('{tmp_path}/{name}.json', 'w').write(json.dumps(sys.argv[1:]))"
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/bash\n{sys.executable} -S -c {shlex.quote(note)} "$@"\n{rest}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def noted(folder: Path, program: str) -> list[str] | None:
    file = folder / f"{program}.json"
    return json.loads(file.read_text()) if file.exists() else None


@pytest.mark.parametrize(("code", "again"), [(0, False), (REQUEUE, True), (2, False)])
def test_the_slurm_script_queues_again_what_was_preempted(stand_ins, monkeypatch, code: int, again: bool) -> None:
    monkeypatch.setenv("EXIT_CODE", str(code))
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    script = ["bash", str(RECIPES / "train.sbatch"), "experiment=dark_room", "attention.layout=zigzag"]
    assert subprocess.run(script, check=False).returncode == code
    assert noted(stand_ins, "scontrol") == (["requeue", "77"] if again else None)
    arguments = noted(stand_ins, "ringrl")
    assert arguments is not None
    config = compose(*arguments[1:], hydra_too=True)
    assert (arguments[0], config.mesh.ring, config.attention.layout) == ("train", -1, "zigzag")
    assert (config.resume, config.hydra.run.dir) == ("auto", "runs/train/slurm/77")


def test_the_slurm_script_starts_a_process_a_gpu() -> None:
    lines = (RECIPES / "train.sbatch").read_text().splitlines()
    parts = [line.removeprefix("#SBATCH --").partition("=") for line in lines if line.startswith("#SBATCH")]
    options = {name: value for name, _, value in parts}
    assert options["gpus-per-node"] == options["ntasks-per-node"]
    assert options["signal"].startswith("USR1@")
    assert "requeue" in options


@pytest.mark.parametrize("workers", ["a:0:10.0.0.1,b:1:10.0.0.2,c:2:10.0.0.3", "10.0.0.1,10.0.0.2,10.0.0.3"])
@pytest.mark.parametrize("extra", [[], ["experiment=dark_room", "name=a b"]])
def test_the_tpu_script_tells_every_worker_who_it_is(stand_ins, monkeypatch, workers: str, extra: list[str]) -> None:
    (stand_ins / "ringrl" / ".venv" / "bin").mkdir(parents=True)
    (stand_ins / "ringrl" / ".venv" / "bin" / "ringrl").symlink_to(stand_ins / "bin" / "ringrl")
    for name, value in {"NAME": "slice", "ZONE": "z", "FOLDER": "/disk/run", "WORKERS": workers}.items():
        monkeypatch.setenv(name, value)
    subprocess.run(["bash", str(RECIPES / "tpu_pod.sh"), *extra], check=True)
    arguments = noted(stand_ins, "ringrl")
    assert arguments is not None
    assert arguments[:2] == ["train", "cluster=tpu_pod"]
    assert arguments[2 : 2 + len(extra)] == extra
    given = [argument for argument in arguments[2:] if argument != "name=a b"]
    config = compose(*given, *([] if extra else ["data=dark_room"]), hydra_too=True)
    assert dict(config.distributed) | {"timeout_seconds": 0} == {
        "coordinator": "10.0.0.1:8476", "process_id": 2, "num_processes": 3, "detect": True, "timeout_seconds": 0,
    }  # fmt: skip
    assert (config.resume, config.hydra.run.dir) == ("auto", "/disk/run")


def documents() -> dict[str, dict]:
    return {document["kind"]: document for document in yaml.safe_load_all((RECIPES / "kubernetes.yaml").read_text())}


def test_the_kubernetes_job_composes_for_every_pod() -> None:
    found = documents()
    job, service = found["Job"]["spec"], found["Service"]
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    commands = []
    for index in range(job["completions"]):
        words = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in container["command"]]
        assert words[:2] == ["ringrl", "train"]
        assert not any("$(" in word for word in words)
        commands.append(built(*(word for word in words[2:] if not word.startswith("hydra."))))
    assert [command.distributed.process_id for command in commands] == list(range(job["completions"]))
    assert job["completionMode"] == "Indexed"
    for command in commands:
        host, port = command.distributed.coordinator.split(":")
        assert host == f"{found['Job']['metadata']['name']}-0.{service['metadata']['name']}"
        assert int(port) in [named["containerPort"] for named in container["ports"]]
        assert command.distributed.num_processes == job["completions"] == job["parallelism"]
        assert not command.distributed.detect
        assert (command.resume, command.mesh.ring) == ("auto", -1)


def test_the_kubernetes_job_is_found_by_its_service_and_replaces_what_was_preempted() -> None:
    found = documents()
    job, service = found["Job"]["spec"], found["Service"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": found["Job"]["metadata"]["name"]}
    assert job["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert job["template"]["spec"]["restartPolicy"] == "Never", "podFailurePolicy needs it"
    ignored = [rule for rule in job["podFailurePolicy"]["rules"] if rule["action"] == "Ignore"]
    assert [rule["onExitCodes"]["values"] for rule in ignored if "onExitCodes" in rule] == [[REQUEUE]]
    assert [rule["onPodConditions"][0]["type"] for rule in ignored if "onPodConditions" in rule] == ["DisruptionTarget"]
    assert job["podReplacementPolicy"] == "Failed"


def test_a_wrong_process_is_refused() -> None:
    with pytest.raises(RingRLError, match=r"distributed\.process_id=4"):
        built(
            "data=dark_room", "cluster=kubernetes", "distributed.coordinator=a:1", "distributed.process_id=4",
            "distributed.num_processes=4",
        )  # fmt: skip
