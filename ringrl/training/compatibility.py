"""Differences between two configurations, key by key."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

_ABSENT = object()


@dataclasses.dataclass(frozen=True)
class Change:
    """One key whose value differs between a checkpoint and the configuration that resumes it."""

    key: str  # dotted
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} was {_word(self.was)}, is {_word(self.now)}"


def changes_between(saved: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[Change]:
    """Every leaf, by its dotted key, that differs between two nested mappings; a missing one counts as None.

    Tuples are compared as lists, which JSON makes of them.
    """
    found: list[Change] = []
    for name in dict.fromkeys([*now, *saved]):
        key, theirs, ours = f"{prefix}{name}", saved.get(name, _ABSENT), now.get(name, _ABSENT)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            found += changes_between(theirs, ours, f"{key}.")
        elif _plain(ours) != _plain(theirs):
            found.append(Change(key, None if theirs is _ABSENT else theirs, None if ours is _ABSENT else ours))
    return found


def list_changes(found: Iterable[Change]) -> str:
    """Format changes as one line."""
    return "; ".join(map(str, found))


def _word(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
