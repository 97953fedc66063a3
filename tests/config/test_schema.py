"""Frozen dataclasses out to OmegaConf and back."""

import dataclasses
import enum
from typing import Any

import pytest
from omegaconf import OmegaConf

from ringrl.cli.compose import as_plain
from ringrl.config import COMMANDS, EvalCommand, TrainCommand
from ringrl.config.schema import build, key_paths, matches, nearest, schema
from ringrl.errors import RingRLError


class Color(enum.StrEnum):
    red = "red"
    green = "green"


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = 3
    rate: float | None = None
    color: Color = Color.red

    def __post_init__(self) -> None:
        if self.size < 1:
            raise RingRLError(f"size={self.size} is too small.")


@dataclasses.dataclass(frozen=True)
class Outer:
    needed: str
    inner: Inner = dataclasses.field(default_factory=lambda: Inner(size=7))
    free: dict[str, Any] = dataclasses.field(default_factory=dict)
    items: dict[str, Inner] = dataclasses.field(default_factory=dict)
    names: list[str] = dataclasses.field(default_factory=list)


def test_round_trip_through_a_merged_schema() -> None:
    yaml = """
    needed: a
    inner: {color: green, rate: 2}
    free: {deep: {x: [1, 2]}}
    items: {one: {size: 5}}
    names: [b, c]
    """
    config = OmegaConf.merge(OmegaConf.structured(schema(Outer)), OmegaConf.create(yaml))
    built = build(Outer, OmegaConf.to_container(config, enum_to_str=True))
    assert built == Outer("a", Inner(7, 2.0, Color.green), {"deep": {"x": [1, 2]}}, {"one": Inner(size=5)}, ["b", "c"])
    assert isinstance(built.inner.rate, float)


@pytest.mark.parametrize("command", COMMANDS.values())
def test_defaults_survive(command: type) -> None:
    given = {"checkpoint": "run"} if command is EvalCommand else {}
    if command is COMMANDS["collect"]:
        given = {"dataset": "a-v0", "env": {"id": "x"}, "behavior": {"one": {"kind": "random"}}}
    if command is COMMANDS["import"]:
        given = {"name": "a", "source": "d4rl", "path": "a.hdf5"}
    if command is COMMANDS["plan"]:
        given = {"tokens": 8}
    config = OmegaConf.merge(OmegaConf.structured(schema(command)), given)
    assert build(command, OmegaConf.to_container(config, enum_to_str=True)) == build(command, given)


def test_a_checkpoint_from_before_a_key_has_its_default() -> None:
    from ringrl.cli.resuming import add_defaults

    config = as_plain(TrainCommand())
    older = {**config, "data": {key: value for key, value in config["data"].items() if key not in ("also", "tasks")}}
    assert add_defaults({"config": older, "step": 3}) == {"config": config, "step": 3}


def test_plain_values_of_a_checkpoint_build_the_same() -> None:
    command = TrainCommand()
    assert build(TrainCommand, dataclasses.asdict(command)) == command


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "needed is needed"),
        ({"needed": "a", "inner": {"sise": 1}}, "'inner.sise': did you mean 'inner.size'"),
        ({"needed": "a", "inner": {"color": "gren"}}, "inner.color='gren': choose from green, red"),
        ({"needed": "a", "inner": {"size": "x"}}, "inner.size='x': int is needed"),
        ({"needed": "a", "inner": {"size": 0}}, "size=0 is too small"),
        ({"needed": "a", "inner": {"size": True}}, "inner.size=True: int is needed"),
        ({"needed": "a", "inner": 3}, "inner=3: a section"),
        ({"needed": None}, "needed=null"),
        ({"needed": "a", "items": {"one": {"colour": "red"}}}, "'items.one.colour': did you mean 'items.one.color'"),
    ],
)
def test_faults_are_one_line(values: dict, words: str) -> None:
    with pytest.raises(RingRLError) as caught:
        build(Outer, values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_key_paths() -> None:
    paths = key_paths(Outer)
    assert {"inner", "inner.size", "free.**", "items.*.color", "names"} <= set(paths)
    for key in ("inner", "inner.size", "free", "free.a", "free.a.b", "items.x", "items.x.size"):
        assert matches(key, paths), key
    for key in ("iner", "inner.sise", "inner.size.x", "names.x", "items.x.sise"):
        assert not matches(key, paths), key


def test_nearest_looks_at_the_last_part_too() -> None:
    paths = key_paths(TrainCommand)
    assert nearest("learning_rate", paths)[0] == "training.optimizer.learning_rate"
    assert nearest("agent.nam", paths)[0] == "agent.name"
    assert nearest("trainig.steps", paths)[0] == "training.steps"
