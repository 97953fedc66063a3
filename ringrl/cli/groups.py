"""The config groups of the command line: which a command has, and their choices."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path

import yaml

from ringrl.config.tables import tables

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if libyaml is installed


@functools.cache
def find_groups(command: str, conf: Path) -> tuple[str, ...]:
    """The groups in a command's own file in `conf`, in its order."""
    entries = yaml.load((conf / f"{command}.yaml").read_text(), _LOADER)["defaults"]
    return tuple(str(key) for entry in entries if isinstance(entry, dict) for key in entry)


def choices_in(folders: Iterable[Path]) -> dict[str, tuple[str, ...]]:
    """The choices of every group: rows of tables, and files in `folders`, such as `exorl/walker` of `collection`."""
    groups = {name: set(rows) for name, rows in tables().items()}
    for name, found in find_choice_files(folders).items():
        groups.setdefault(name, set()).update(found)
    return {name: tuple(sorted(found)) for name, found in sorted(groups.items())}


def find_choice_files(folders: Iterable[Path]) -> dict[str, set[str]]:
    """The choices of every group that are YAML files in `folders`."""
    groups: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.rglob("*.yaml"):
            choice = file.relative_to(folder).with_suffix("").as_posix()
            for cut in (found.start() for found in re.finditer("/", choice)):
                groups.setdefault(choice[:cut], set()).add(choice[cut + 1 :])
    return groups


def format_choices(choices: Iterable[str]) -> str:
    """Choices in a line: `dark_room, exorl/... (5)`, with the number of choices in a folder in parentheses."""
    alone, folders = [], {}
    for choice in choices:
        folder, slash, _ = choice.partition("/")
        if slash:
            folders[folder] = folders.get(folder, 0) + 1
        else:
            alone.append(choice)
    return ", ".join([*alone, *(f"{folder}/... ({count})" for folder, count in folders.items())])
