"""The one kind of error that users see as a single line."""

import enum
from collections.abc import Mapping
from typing import Any, TypeVar

ERROR_FILE = "error.txt"  # in the folder of a sweep's job that failed: why, in a line


class RingRLError(Exception):
    """A fault in the user's input: one line that names the file, key or episode and the remedy.

    The command line prints the message alone and exits with code 2; `--debug` shows the traceback.
    """


class Preempted(Exception):
    """A scheduler has asked the run to make room: it has saved, and can be queued again (exit code 75)."""


class Interrupted(Exception):
    """Trials were left unfinished because the run is to stop and save."""


def check_least(section: str, values: Any, least: Mapping[Any, float]) -> None:
    """Raises RingRLError where an attribute of `values` is below its least value, or NaN; null is let through."""
    for name, bound in least.items():
        value = getattr(values, name)
        if value is not None and not value >= bound:
            raise RingRLError(f"{f'{section}.' if section else ''}{name}={value}: use at least {bound}.")


Choice = TypeVar("Choice", bound=enum.StrEnum)


def choice(key: str, value: str, choices: type[Choice]) -> Choice:
    """The member of an enum that a value is or names; raises RingRLError with what there is to choose from."""
    try:
        return choices(value)
    except ValueError:
        raise RingRLError(f"{key}={value} is unknown: choose {', '.join(choices)}.") from None
