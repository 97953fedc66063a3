"""The keys of a command, each with its default, type and description, read from the source of the dataclasses.

A field is described by the comment after it, or above it; a field without one by the docstring of its enum. The source
is part of every installation, so descriptions are not duplicated.
"""

import ast
import dataclasses
import enum
import functools
import inspect
import io
import tokenize
import types
import typing
from typing import Any


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of the command line; a section when it has keys below it."""

    path: str
    kind: str  # such as `int`, or the choices `a|b|c`
    default: str  # as typed; empty if a value is required
    text: str  # description in a line


@dataclasses.dataclass(frozen=True)
class Section:
    """The keys of one dataclass."""

    path: str  # empty for the command itself
    text: str
    keys: tuple[Key, ...]


def list_sections(command: type, path: str = "", text: str = "") -> list[Section]:
    """The command's own keys first, then those of each section below it.

    Args:
        command: a command's dataclass.
        path: path of the section, in recursion.
        text: description of the field that holds the section.
    """
    hints, texts = typing.get_type_hints(command), descriptions(command)
    keys, below = [], []
    for field in dataclasses.fields(command):
        here = f"{path}.{field.name}" if path else field.name
        hint = _without_none(hints[field.name])
        if dataclasses.is_dataclass(hint):
            below += list_sections(hint, here, texts[field.name])  # type: ignore[arg-type]
            continue
        item = typing.get_args(hint)[1] if typing.get_origin(hint) is dict else None
        if dataclasses.is_dataclass(item):
            below += list_sections(item, f"{here}.NAME", texts[field.name])  # type: ignore[arg-type]
            continue
        default = _default(field)
        if item is not None:
            here, default = f"{here}.NAME", "VALUE"
        keys.append(Key(here, _kind(hint), default, texts[field.name] or _first_line(hint)))
    told = " ".join(filter(None, (_first_line(command), text and f"({text.rstrip('.')})")))
    return [Section(path, told, tuple(keys)), *below]


@functools.cache
def descriptions(cls: type) -> dict[str, str]:
    """The comments after, or else right above, each field of a dataclass; empty if there is none."""
    lines, _ = inspect.getsourcelines(cls)
    source = inspect.cleandoc("".join(["\n", *lines])) if lines[0][:1].isspace() else "".join(lines)
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    alone = {number for number, line in enumerate(source.splitlines(), 1) if line.lstrip().startswith("#")}
    told = {}
    [tree] = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    for node in tree.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        text = comments.get(node.end_lineno or node.lineno, "")
        above = node.lineno - 1
        before = []
        while not text and above in alone:
            before.insert(0, comments[above])
            above -= 1
        told[node.target.id] = text or " ".join(before)
    return {field.name: told.get(field.name, "") for field in dataclasses.fields(cls)}  # type: ignore[arg-type]


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return kinds[0] if len(kinds) == 1 else hint
    return hint


def _kind(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "|".join(str(member.value) for member in hint)
    if typing.get_origin(hint) is list:
        item = typing.get_args(hint)[0]
        return f"[{_kind(item)},...]"
    if typing.get_origin(hint) is dict:
        return "value"
    return getattr(hint, "__name__", str(hint)).lower().replace("bool", "true|false")


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    elif field.default is not dataclasses.MISSING:
        value = field.default
    else:
        return ""
    return _typed(value)


def _typed(value: Any) -> str:
    """Format a value as typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, dict):
        return "{}" if not value else str(value)
    return "''" if value == "" else str(value)


def _first_line(cls: Any) -> str:
    """The first line of the docstring of a RingRL class."""
    own = isinstance(cls, type) and (dataclasses.is_dataclass(cls) or issubclass(cls, enum.Enum))
    return (inspect.getdoc(cls) or "").split("\n")[0] if own else ""
