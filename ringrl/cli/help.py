"""`ringrl COMMAND --help`: the command's groups and every key of it, one per line."""

import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ringrl.cli.groups import choices_in, find_choice_files, find_groups, format_choices
from ringrl.cli.keys import Key, Section, list_sections
from ringrl.config import COMMANDS
from ringrl.config.schema import nearest
from ringrl.errors import RingRLError

FLAGS = (
    ("-m, --multirun", "a sweep: every combination of key=a,b values; hydra/launcher=joblib runs it in parallel"),
    ("--cfg job", "print the configuration as these words compose it, and run nothing"),
    ("--config-dir FOLDER", "a folder of your own YAML files, under names that RingRL does not use"),
    ("--debug", "tracebacks instead of one-line errors"),
    ("--hydra-help", "the flags of Hydra, which reads all this"),
)
LEFT = 36  # width of the column of keys
NARROW, WIDE = 80, 140


def help_text(command: str, summary: str, folders: Sequence[Path], chosen: Sequence[str] = ()) -> str:
    """The help of a command as text.

    Args:
        command: name of the command.
        summary: a line about the command.
        folders: folders of YAML files, RingRL's own first.
        chosen: sections of keys to show; if empty, all.

    Raises:
        RingRLError: the command has no such section.
    """
    width = max(NARROW, min(WIDE, shutil.get_terminal_size((120, 24)).columns))
    sections = list_sections(COMMANDS[command])
    known = [section.path for section in sections if section.path]
    for name in chosen:
        if name not in known:
            alike = nearest(name, known) if known else ["nothing"]
            raise RingRLError(f"ringrl {command} {name} --help: no such section; did you mean {alike[0]!r}?")
    wanted = [
        section for section in sections if not chosen or any(_within(section.path, name) for name in chosen)
    ]  # fmt: skip
    keys = [line for section in wanted for line in _section(section, width)]
    if chosen:
        return "\n".join(keys).strip("\n")
    groups = _groups(command, folders, width)
    usage = f"usage: ringrl {command} {'[group=choice] ' if groups else ''}[key=value] [flags]"
    return "\n".join([f"ringrl {command}: {summary}", "", usage, *groups, *_flags(width), *keys])


def _groups(command: str, folders: Sequence[Path], width: int) -> list[str]:
    choices = choices_in(folders)
    own = sorted(name for name in find_choice_files(folders[1:]) if "/" not in name)
    names = [name for name in dict.fromkeys([*find_groups(command, folders[0]), *own]) if name in choices]
    if not names:
        return []
    rows = [line for name in names for line in _row(f"{name}=", format_choices(choices[name]), width)]
    return ["", "groups, each choice a file of settings, which may change the defaults below:", *rows]


def _flags(width: int) -> list[str]:
    return ["", "flags:", *(line for name, text in FLAGS for line in _row(name, text, width))]


def _section(section: Section, width: int) -> list[str]:
    title = "keys, with their defaults:" if not section.path else f"{section.path}.*"
    told = re.sub(r"\s*\(docs/[^)]*\)", "", section.text).rstrip(".") if section.path else ""
    head = textwrap.wrap(f"{title}  {told}" if told else title, width, subsequent_indent="  ")
    return ["", *head, *(line for key in section.keys for line in _row(_typed(key), _told(key), width))]


def _typed(key: Key) -> str:
    return f"{key.path}={key.default or 'VALUE'}"


def _told(key: Key) -> str:
    choices = f" [{key.kind}]" if "|" in key.kind and key.kind != "true|false" else ""
    return f"{key.text}{choices}" if key.default else f"needed: {key.text}{choices}"


def _row(name: str, text: str, width: int) -> list[str]:
    lines = textwrap.wrap(text, width - LEFT - 3, break_long_words=False) or [""]
    first = f"  {name:{LEFT}} {lines[0]}".rstrip()
    start = [first] if len(name) <= LEFT else [f"  {name}", f"{'':{LEFT + 3}}{lines[0]}"]
    return [*start, *(f"{'':{LEFT + 3}}{line}" for line in lines[1:])]


def _within(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}.")
