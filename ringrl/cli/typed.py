"""Formatting of overrides as typed in a shell, so that printed commands can be pasted."""

import re
import shlex
from typing import Any

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+-]+")  # Hydra reads these without quotes


def format_override(key: str, value: Any) -> str:
    """Format `key=value` as one word of a shell that Hydra reads back as that value, quoted for both if needed."""
    text = str(value)
    if not _PLAIN.fullmatch(text):
        escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", text).replace("'", "\\'")
        text = f"'{escaped}'"
    return shlex.quote(f"{key}={text}")
