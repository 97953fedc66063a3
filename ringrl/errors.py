"""Exceptions; RingRLError is the one that users see as a single line."""

import enum
from collections.abc import Mapping
from typing import Any, TypeVar

ERROR_FILE = "error.txt"  # in the folder of a failed sweep job: the reason, in one line


class RingRLError(Exception):
    """An error in the user's input: one line that names the file, key or episode and the remedy.

    The command line prints the message alone and exits with code 2; `--debug` shows the traceback.
    """


class Preempted(Exception):
    """A scheduler has preempted the run, which has saved and can be requeued (exit code 75)."""


class Interrupted(Exception):
    """An evaluation was interrupted because the run is to stop and save."""


def check_least(section: str, values: Any, least: Mapping[Any, float]) -> None:
    """Raise RingRLError if an attribute of `values` is below its minimum, or NaN; null is accepted."""
    for name, bound in least.items():
        value = getattr(values, name)
        if value is not None and not value >= bound:
            raise RingRLError(f"{f'{section}.' if section else ''}{name}={value}: use at least {bound}.")


Choice = TypeVar("Choice", bound=enum.StrEnum)


def parse_choice(key: str, value: str, choices: type[Choice]) -> Choice:
    """Convert a value to a member of an enum; raises RingRLError with the valid choices."""
    try:
        return choices(value)
    except ValueError:
        raise RingRLError(f"{key}={value} is unknown: choose {', '.join(choices)}.") from None
