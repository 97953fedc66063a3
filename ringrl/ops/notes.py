"""What is chosen while a program is traced, said once: a traced function is called for every layer and program."""

import functools
import logging

_logger = logging.getLogger(__name__)


@functools.cache
def log_once(line: str) -> None:
    """Log a line, unless it was logged since `forget_notes`."""
    _logger.info(line)


def forget_notes() -> None:
    """Let every line be logged anew: called by each job of a process, whose log is its own."""
    log_once.cache_clear()
