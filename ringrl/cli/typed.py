"""Overrides as they are typed, so that what is printed can be pasted into a shell."""

import re
import shlex
from typing import Any

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+-]+")  # what Hydra reads without quotes


def typed(key: str, value: Any) -> str:
    """`key=value` as one word of a shell, which Hydra reads back as that value: quoted for both where it must be."""
    text = str(value)
    if not _PLAIN.fullmatch(text):
        escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", text).replace("'", "\\'")
        text = f"'{escaped}'"
    return shlex.quote(f"{key}={text}")
