"""Flushing of files to the disk."""

import contextlib
import os
from pathlib import Path


def flush(path: Path) -> None:
    """Flush a file, or a folder's entries if the system supports that, to the disk."""
    with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
