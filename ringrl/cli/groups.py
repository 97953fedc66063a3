"""The groups of configuration files: which a command has, and what there is to choose from."""

import re
from collections.abc import Iterable
from pathlib import Path

import yaml

DERIVED = ("tuning",)  # chosen by what other groups are


def groups_of(command: str, conf: Path) -> tuple[str, ...]:
    """The groups that a command's own file names, in its order; those chosen by others left out."""
    entries = yaml.safe_load((conf / f"{command}.yaml").read_text())["defaults"]
    named = [str(key).removeprefix("optional ") for entry in entries if isinstance(entry, dict) for key in entry]
    return tuple(name for name in named if name not in DERIVED)


def choices_in(folders: Iterable[Path]) -> dict[str, tuple[str, ...]]:
    """The choices of every group in folders of YAML files, `d4rl/pen_human` of `data` among them."""
    groups: dict[str, set[str]] = {}
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            choice = file.relative_to(folder).with_suffix("").as_posix()
            for cut in (found.start() for found in re.finditer("/", choice)):
                groups.setdefault(choice[:cut], set()).add(choice[cut + 1 :])
    return {name: tuple(sorted(found)) for name, found in groups.items()}


def listed(choices: Iterable[str]) -> str:
    """Choices in a line: `at, bc, d4rl/{28}`, the number in braces counting those of a folder."""
    alone, folders = [], {}
    for choice in choices:
        folder, slash, _ = choice.partition("/")
        if slash:
            folders[folder] = folders.get(folder, 0) + 1
        else:
            alone.append(choice)
    return ", ".join([*alone, *(f"{folder}/... ({count})" for folder, count in folders.items())])
