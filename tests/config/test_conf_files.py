"""Every YAML file and every row of a table composes and builds the dataclasses of its command, checks included."""

from pathlib import Path

import hydra
import pytest

from ringrl.cli.compose import build_command, find_conf_folder, register
from ringrl.cli.groups import choices_in
from ringrl.config import COMMANDS, CollectCommand, EnvConfig, TrainCommand
from ringrl.config.schema import build
from ringrl.config.tables import tables
from ringrl.data.config import DataConfig
from ringrl.planning.cluster.targets import TARGETS, Target, fill_specification

CONF = find_conf_folder()
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


def choices(group: str) -> tuple[str, ...]:
    return choices_in([CONF])[group]


def compose(command: str, *overrides: str):
    register([command])
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = hydra.compose(command, overrides=[*NEEDED.get(command, ()), *overrides])
    return build_command(COMMANDS[command], config)


def test_every_group_is_covered() -> None:
    found = {name for name in choices_in([CONF]) if "/" not in name}
    assert found == {*TRAIN_GROUPS, *ROWS, "collection", "behavior", "experiment"}


TRAIN_GROUPS = ("agent", "model", "attention", "training", "evaluation", "cluster")
ROWS = {"data": DataConfig, "env": EnvConfig, "target": Target}


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_build(command: str) -> None:
    assert type(compose(command)) is COMMANDS[command]


@pytest.mark.parametrize(("group", "choice"), [(group, choice) for group in TRAIN_GROUPS for choice in choices(group)])
def test_train_groups_build(group: str, choice: str) -> None:
    built = compose("train", f"{group}={choice}")
    if group == "agent":
        assert built.agent.name == choice


@pytest.mark.parametrize("group", ROWS)
def test_rows_build(group: str) -> None:
    assert not (CONF / group).exists(), "a group is a table or a folder"
    for choice, row in tables()[group].items():
        built = build(ROWS[group], row)
        if group == "data" and choice not in ("minari", "store"):
            assert built.name == f"ringrl/{choice}-v0"
        if group == "env" and choice != "from_data":
            assert built.id


@pytest.mark.parametrize("choice", TARGETS)
def test_targets_have_all_figures(choice: str) -> None:
    settled = fill_specification(build(Target, tables()["target"][choice]))
    assert settled.name == choice
    assert settled.devices > 0
    assert min(settled.memory, settled.peak_flops, settled.bandwidth) > 0
    assert settled.source


def test_a_row_is_composed_as_a_file_is() -> None:
    assert compose("plan", "target=a100x8", "target.memory=7").target == Target("a100x8", "a100:1x8", memory=7)
    assert compose("train", "env=kitchen", "++env.kwargs.size=3").env.kwargs.keys() == {"tasks_to_complete", "size"}
    built = compose("train", "experiment=dark_room", "data=pendulum")
    assert (built.data.name, built.name) == ("ringrl/pendulum-v0", "dark_room")


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_experiments_build_with_every_agent(experiment: str) -> None:
    of_agents: list[TrainCommand] = [compose("train", f"experiment={experiment}", f"agent={agent}") for agent in AGENTS]
    for built, agent in zip(of_agents, AGENTS, strict=True):
        assert built.name == experiment
        assert built.agent.name == agent
        assert built.chain.context == {"at": "chain", "dt": "trial", "bc": "step", "bc10": "step"}[agent]
        assert (built.chain.trajectories == 1) == (agent != "at")
        assert built.data.top_fraction == (0.1 if agent == "bc10" else 1.0)
        assert built.evaluation.trials > 1, "controls are given as many trials as AT"
    assert len({built.chain.trajectories * built.training.batch_size for built in of_agents}) == 1
    assert len({built.training.steps for built in of_agents[1:]}) == 1


@pytest.mark.parametrize("collection", choices("collection"))
def test_collections_write_what_data_rows_read(collection: str) -> None:
    built: CollectCommand = compose("collect", f"collection={collection}")
    if collection.startswith("exorl/"):  # written for `ringrl import`
        assert (built.format, built.dataset.split("/")[0]) == ("exorl", collection.removeprefix("exorl/"))
    else:
        assert tables()["data"][collection]["name"] == built.dataset


@pytest.mark.parametrize("behavior", choices("behavior"))
def test_behaviors_build(behavior: str) -> None:
    needed = {"mixture": ["++behavior.actors.checkpoint=RUN"], "checkpoint": ["++behavior.agent.checkpoint=RUN"]}
    assert compose("collect", f"behavior={behavior}", *needed.get(behavior, [])).behavior


def test_command_line_beats_experiment_and_agent_beats_experiment() -> None:
    built = compose("train", "experiment=quickstart", "agent=dt")
    assert (built.chain.trajectories, built.training.batch_size, built.training.steps) == (1, 256, 500)
    assert compose("train", "experiment=quickstart", "chain.trajectories=3").chain.trajectories == 3
    built = compose("train", "experiment=quickstart")
    assert (built.chain.trajectories, built.training.batch_size, built.training.steps) == (16, 16, 1200)


def test_files_end_in_yaml() -> None:
    assert {file.suffix for file in Path(CONF).rglob("*") if file.is_file()} == {".yaml"}
