"""Whether a checkpoint belongs to the configuration that would use it."""

from collections.abc import Mapping
from typing import Any

from ringrl.errors import RingRLError


def check_compatible(metadata: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise RingRLError listing every key whose value differs between a checkpoint and `expected`.

    `expected` is a part of the metadata to insist on, for example `{"config": {"model": ..., "chain": ...},
    "data_fingerprint": ...}`: within a mapping of scalars every key of both sides counts, elsewhere only
    the keys that `expected` names.
    """
    differing = _differences(metadata, expected, "")
    if differing:
        raise RingRLError(
            f"The checkpoint is of another configuration: {'; '.join(differing)}. "
            "Set the same values, or start a new run."
        )


def _differences(saved: Mapping[str, Any], expected: Mapping[str, Any], prefix: str) -> list[str]:
    """One line per differing key, the leading `config.` left out of its name."""
    names = list(expected)
    if prefix and any(not isinstance(value, Mapping) for value in expected.values()):
        names += [name for name in saved if name not in expected]
    lines: list[str] = []
    for name in names:
        key = f"{prefix}{name}"
        ours, theirs = expected.get(name), saved.get(name)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            lines += _differences(theirs, ours, "" if key == "config" else f"{key}.")
        elif _plain(ours) != _plain(theirs):
            lines.append(f"{key} is {theirs!r} in the checkpoint and {ours!r} now")
    return lines


def _plain(value: Any) -> Any:
    """Tuples as the lists that JSON makes of them."""
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
