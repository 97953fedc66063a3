"""Log lines about choices made in tracing, each logged once: a function is traced for every layer and program."""

import contextlib
import contextvars
import logging
from collections.abc import Iterator

_logger = logging.getLogger(__name__)
_said: set[str] = set()
_recorded: contextvars.ContextVar[dict[str, None] | None] = contextvars.ContextVar("recorded", default=None)


def log_once(line: str) -> None:
    """Log a line, unless it was logged since `forget_notes`."""
    recorded = _recorded.get()
    if recorded is not None:
        recorded[line] = None
    if line not in _said:
        _said.add(line)
        _logger.info(line)


def forget_notes() -> None:
    """Let every line be logged anew: called by each job of a process, whose log is its own."""
    _said.clear()


@contextlib.contextmanager
def record_notes() -> Iterator[dict[str, None]]:
    """The lines given to `log_once` inside, in order, logged before or not."""
    lines: dict[str, None] = {}
    token = _recorded.set(lines)
    try:
        yield lines
    finally:
        _recorded.reset(token)
