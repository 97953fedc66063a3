"""`ringrl COMMAND --help`: every key has a line that says what it does; nothing of other commands."""

import dataclasses
import enum
from pathlib import Path

import pytest

from ringrl.cli.compose import find_conf_folder
from ringrl.cli.groups import choices_in, find_groups, format_choices
from ringrl.cli.help import help_text
from ringrl.cli.keys import descriptions, list_sections
from ringrl.config import COMMANDS
from ringrl.config.schema import key_paths, list_paths


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_says_what_it_does(command: str) -> None:
    sections = list_sections(COMMANDS[command])
    wordless = [key.path for section in sections for key in section.keys if len(key.text) < 3]
    assert wordless == [], "give these fields of the dataclasses a comment"
    assert all(section.text for section in sections)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_key_is_forgotten(command: str) -> None:
    shown = {key.path.replace("NAME", "*") for section in list_sections(COMMANDS[command]) for key in section.keys}
    paths = {path.replace("**", "*") for path in key_paths(COMMANDS[command])}
    leaves = {path for path in paths if not any(other.startswith(f"{path}.") for other in paths)}
    assert shown == leaves


class Color(enum.StrEnum):
    """What it is painted with."""

    red = "red"
    blue = "blue"


@dataclasses.dataclass(frozen=True)
class Inner:
    """Of the inside."""

    color: Color = Color.red


@dataclasses.dataclass(frozen=True)
class Outer:
    """Of the outside."""

    needed: int  # how many
    text: str = "a # b"  # not at the first sign
    # Above a field
    # in two lines.
    above: list[int] = dataclasses.field(default_factory=lambda: [1, 2])
    long: float | None = (  # where it begins does not count
        None
    )  # behind its end
    inner: Inner = dataclasses.field(default_factory=Inner)  # what is within


def test_descriptions_come_from_comments() -> None:
    told = descriptions(Outer)
    assert told == {
        "needed": "how many",
        "text": "not at the first sign",
        "above": "Above a field in two lines.",
        "long": "behind its end",
        "inner": "what is within",
    }


def test_sections() -> None:
    outer, inner = list_sections(Outer)
    assert [(key.path, key.kind, key.default) for key in outer.keys] == [
        ("needed", "int", ""),
        ("text", "str", "a # b"),
        ("above", "[int,...]", "[1,2]"),
        ("long", "float", "null"),
    ]
    assert (inner.path, inner.text) == ("inner", "Of the inside. (what is within)")
    [key] = inner.keys
    assert (key.path, key.kind, key.default) == ("inner.color", "red|blue", "red")
    assert key.text == "What it is painted with."


def test_help_shows_the_groups_of_the_command_alone(ringrl) -> None:
    text = ringrl("collect", "--help").out
    assert "\n  collection=" in text
    assert "exorl/... (5)" in text
    assert "\n  episodes_per_task=100 " in text
    for foreign in ("experiment=", "target=", "cluster=", "training.steps"):
        assert foreign not in text
    assert "groups" not in ringrl("report", "--help").out


def test_help_of_one_section(ringrl) -> None:
    text = ringrl("train", "training", "--help").out
    assert text.startswith("training.*")
    assert "training.optimizer.learning_rate=0.001" in text
    assert "agent." not in text
    assert "did you mean 'training'" in ringrl("train", "trainig", "--help").error


def test_help_shows_a_users_own_groups(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("name: me/mine-v0\n")
    assert ", mine," in help_text("train", "x", [find_conf_folder(), tmp_path])


@pytest.mark.parametrize("command", COMMANDS)
def test_lists_are_known(command: str) -> None:
    shown = [key.path for section in list_sections(COMMANDS[command]) for key in section.keys if key.kind[0] == "["]
    assert sorted(list_paths(COMMANDS[command])) == sorted(shown)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_its_width(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = help_text(command, "what it does", [find_conf_folder()])
    assert max(len(line) for line in text.splitlines()) <= 100
    assert len(text.splitlines()) < 220


def test_groups() -> None:
    assert find_groups("eval", find_conf_folder()) == ("env", "evaluation")
    assert format_choices(["a", "b/c", "b/d"]) == "a, b/... (2)"
    choices = choices_in([find_conf_folder()])
    assert "exorl/walker" in choices["collection"]
    assert "walker" in choices["collection/exorl"]
    assert {"dark_room", "store"} <= set(choices["data"])
