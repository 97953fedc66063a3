"""Atomic writing of files."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ringrl.errors import RingRLError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context that yields a temporary path, whose file replaces `path` on success and is removed on failure.

    Raises:
        OSError: the folder cannot be made, or the file not moved.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file under another name, then move it into place; raises `RingRLError` where that fails."""
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise RingRLError(
            f"{path} cannot be written ({error.strerror}): make room or choose another folder."
        ) from error
