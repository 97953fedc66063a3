"""Conversion between frozen dataclasses and OmegaConf: schemas out, checked dataclasses back in.

OmegaConf refuses to merge YAML into a frozen schema, so each dataclass gets a mutable copy with the same fields for
Hydra to fill; `build` then makes the frozen one, whose `__post_init__` checks run.
"""

import dataclasses
import difflib
import enum
import functools
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from omegaconf import MISSING

from ringrl.errors import RingRLError

T = TypeVar("T")


@functools.cache
def schema(cls: type) -> type:
    """The mutable copy of a frozen dataclass, including nested dataclasses; a field without default is `???`."""
    hints = typing.get_type_hints(cls)
    fields = []
    for field in dataclasses.fields(cls):
        if field.default_factory is not dataclasses.MISSING:
            default = dataclasses.field(default_factory=functools.partial(_twin_value, field.default_factory))
        elif field.default is not dataclasses.MISSING:
            default = dataclasses.field(default=field.default)
        else:
            default = dataclasses.field(default=MISSING)
        fields.append((field.name, _twin_type(hints[field.name]), default))
    return dataclasses.make_dataclass(cls.__name__, fields)


def build(cls: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """Build the frozen dataclass `cls` from `values` (plain containers, complete or not).

    Raises RingRLError on an unknown key (with the nearest valid one), a missing value, an invalid choice, and errors of
    the dataclasses' own checks.
    """
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise unknown_key(join(path, str(key)), (join(path, name) for name in hints))
    arguments = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        here = join(path, field.name)
        if field.name in values and values[field.name] != MISSING:
            arguments[field.name] = _convert(hints[field.name], values[field.name], here)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RingRLError(f"{here} is needed: give {here}={_placeholder(hints[field.name])}.")
    return cls(**arguments)


def as_plain(command: Any) -> dict[str, Any]:
    """Convert a frozen dataclass to plain dictionaries, lists, numbers and strings, which `build` accepts."""
    return json.loads(json.dumps(dataclasses.asdict(command)))


def _placeholder(hint: Any) -> str:
    hint = _without_none(hint)
    chosen = isinstance(hint, type) and issubclass(hint, enum.Enum)
    return " or ".join(str(member.value) for member in hint) if chosen else "VALUE"  # type: ignore[attr-defined]


def key_paths(cls: type, path: str = "") -> list[str]:
    """Every dotted key of `cls`, sections and leaves; `*` is one arbitrary name, a final `**` any keys below."""
    paths = []
    for name, hint in typing.get_type_hints(cls).items():
        here = join(path, name)
        paths.append(here)
        hint = _without_none(hint)
        if dataclasses.is_dataclass(hint):
            paths.extend(key_paths(hint, here))  # type: ignore[arg-type]
        elif typing.get_origin(hint) is dict:
            item = typing.get_args(hint)[1]
            if dataclasses.is_dataclass(item):
                paths.extend([f"{here}.*", *key_paths(item, f"{here}.*")])  # type: ignore[arg-type]
            else:
                paths.append(f"{here}.**")
    return paths


def list_paths(cls: type, path: str = "") -> list[str]:
    """The `key_paths` whose values are lists."""
    paths = []
    for name, hint in typing.get_type_hints(cls).items():
        hint = _without_none(hint)
        if dataclasses.is_dataclass(hint):
            paths.extend(list_paths(hint, join(path, name)))  # type: ignore[arg-type]
        elif typing.get_origin(hint) is list:
            paths.append(join(path, name))
    return paths


def matches(key: str, paths: Iterable[str]) -> bool:
    """Whether `key` matches one of `paths`, in the format of `key_paths`."""
    return any(_matches(key.split("."), path.split(".")) for path in paths)


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if pattern[-1] == "**" and len(parts) >= len(pattern):
        return parts[: len(pattern) - 1] == pattern[:-1]
    return len(parts) == len(pattern) and all(p in ("*", q) for p, q in zip(pattern, parts, strict=True))


def unknown_key(key: str, valid: Iterable[str]) -> RingRLError:
    """The error for a key that does not exist, with the nearest existing one."""
    return RingRLError(f"Unknown key {key!r}: did you mean {nearest(key, valid)[0]!r}?")


def nearest(name: str, candidates: Iterable[str]) -> list[str]:
    """`candidates` from the most to the least similar to `name`, comparing whole paths and their last parts."""

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, name, candidate).ratio()
        last = difflib.SequenceMatcher(None, name.rsplit(".", 1)[-1], candidate.rsplit(".", 1)[-1]).ratio()
        return max(whole, 0.95 * last)

    return sorted((c for c in candidates if "*" not in c), key=likeness, reverse=True)


def join(path: str, name: str) -> str:
    """Join parts of a dotted path."""
    return f"{path}.{name}" if path else name


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return kinds[0] if len(kinds) == 1 else hint
    return hint


def _twin_type(hint: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return schema(hint)  # type: ignore[arg-type]
    if typing.get_origin(hint) is dict:
        return dict[str, Any]  # OmegaConf cannot grow a mapping of dataclasses key by key; `build` checks the items
    return hint


def _twin_value(factory: Any) -> Any:
    return _twin(factory())


def _twin(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return schema(type(value))(**{name: _twin(getattr(value, name)) for name in names})
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _convert(hint: Any, value: Any, path: str) -> Any:
    optional, hint = hint is not _without_none(hint), _without_none(hint)
    if value is None and (optional or hint is Any):
        return None
    if value is None:
        raise RingRLError(f"{path}=null: a value is needed.")
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise RingRLError(f"{path}={value!r}: a section with keys is needed.")
        return build(hint, value, path)  # type: ignore[arg-type]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        try:
            return hint(value)
        except ValueError:
            choices = nearest(str(value), [str(member.value) for member in hint])
            raise RingRLError(f"{path}={value!r}: choose from {', '.join(choices)}.") from None
    if typing.get_origin(hint) is dict:
        item = typing.get_args(hint)[1]
        return {str(key): _convert(item, entry, join(path, str(key))) for key, entry in value.items()}
    if typing.get_origin(hint) is list:
        return [_convert(typing.get_args(hint)[0], entry, f"{path}[{i}]") for i, entry in enumerate(value)]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and hint in (int, float, bool, str) and type(value) is not hint:
        raise RingRLError(f"{path}={value!r}: {hint.__name__} is needed.")
    return value
