"""Every YAML file composes and builds the dataclasses of its command, checks included."""

from pathlib import Path

import hydra
import pytest

from ringrl.cli.compose import command_from, conf_folder, register_schemas
from ringrl.config import COMMANDS, CollectCommand, TrainCommand
from ringrl.planning.targets import settle

CONF = conf_folder()
NEEDED = {
    "train": ["data=dark_room"],
    "eval": ["checkpoint=run"],
    "collect": ["collection=dark_room"],
    "import": ["name=x", "source=d4rl", "path=x.hdf5"],
    "data": [],
    "report": [],
    "bench": [],
    "plan": ["tokens=1048576"],
}
AGENTS = ("at", "dt", "bc", "bc10")


def choices(group: str) -> list[str]:
    folder = CONF / group
    found = sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))
    return [choice for choice in found if group != "data" or "/" not in choice]  # public sets: test_minari_public.py


def compose(command: str, *overrides: str):
    register_schemas()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = hydra.compose(command, overrides=[*NEEDED.get(command, ()), *overrides])
    return command_from(COMMANDS[command], config)


def test_all_groups_are_covered() -> None:
    found = {folder.name for folder in CONF.iterdir() if folder.is_dir()}
    assert found == {*TRAIN_GROUPS, "collection", "behavior", "experiment", "target", "tuning"}


TRAIN_GROUPS = ("agent", "model", "attention", "data", "env", "training", "evaluation", "cluster")


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_build(command: str) -> None:
    assert type(compose(command)) is COMMANDS[command]


@pytest.mark.parametrize(("group", "choice"), [(group, choice) for group in TRAIN_GROUPS for choice in choices(group)])
def test_train_groups_build(group: str, choice: str) -> None:
    needed = ["data.name=x"] if group == "data" and choice in ("minari", "store") else []
    built = compose("train", f"{group}={choice}", *needed)
    if group == "agent":
        assert built.agent.name == choice
    if group == "data" and not needed:
        assert built.data.name


@pytest.mark.parametrize("choice", [name for name in choices("target") if name != "custom"])
def test_targets_build_and_have_all_figures(choice: str) -> None:
    built = settle(compose("plan", f"target={choice}").target)
    assert built.name == choice
    assert built.devices > 0
    assert min(built.memory, built.peak_flops, built.bandwidth) > 0
    assert built.source


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("experiment", choices("experiment"))
def test_experiments_build_with_every_agent(experiment: str, agent: str) -> None:
    built: TrainCommand = compose("train", f"experiment={experiment}", f"agent={agent}")
    assert built.name == experiment
    assert built.agent.name == agent
    assert built.chain.context == {"at": "chain", "dt": "trial", "bc": "step", "bc10": "step"}[agent]
    assert (built.chain.trajectories == 1) == (agent != "at")
    assert built.data.top_fraction == (0.1 if agent == "bc10" else 1.0)
    assert built.evaluation.trials > 1, "controls are given as many trials as AT"


@pytest.mark.parametrize("collection", choices("collection"))
def test_collections_write_what_data_files_read(collection: str) -> None:
    built: CollectCommand = compose("collect", f"collection={collection}")
    if collection.startswith("exorl/"):  # written for `ringrl import`
        assert (built.format, built.dataset.split("/")[0]) == ("exorl", collection.removeprefix("exorl/"))
    else:
        assert compose("train", f"data={collection}").data.name == built.dataset


@pytest.mark.parametrize("behavior", choices("behavior"))
def test_behaviors_build(behavior: str) -> None:
    needed = {"mixture": ["++behavior.actors.checkpoint=RUN"], "checkpoint": ["++behavior.agent.checkpoint=RUN"]}
    assert compose("collect", f"behavior={behavior}", *needed.get(behavior, [])).behavior


def test_tuning_files_name_an_experiment_and_an_agent() -> None:
    known = {f"{experiment}_{agent}" for experiment in choices("experiment") for agent in AGENTS}
    assert set(choices("tuning")) <= known


def test_command_line_beats_experiment_and_agent_beats_experiment() -> None:
    built = compose("train", "experiment=quickstart", "agent=dt")
    assert (built.chain.trajectories, built.training.batch_size) == (1, 256)
    assert compose("train", "experiment=quickstart", "chain.trajectories=3").chain.trajectories == 3
    assert compose("train", "experiment=quickstart").chain.trajectories == 16


def test_files_end_in_yaml() -> None:
    assert {file.suffix for file in Path(CONF).rglob("*") if file.is_file()} == {".yaml"}
