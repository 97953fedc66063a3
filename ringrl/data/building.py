"""Folders under construction, which are moved into place when complete and removed if their builder was killed."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

LOCK_FILE = "writer.lock"
_SUFFIX = 8  # letters that `tempfile` appends to a prefix
_ASIDE = ".old"


class BuildFolder:
    """A hidden folder beside `path` that becomes `path` when `place` is called.

    Its builder holds a lock on a file in it while it runs, so that `remove_leftovers` recognizes the folders of killed
    builders. Raises OSError on errors of the file system.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.folder, self._lock = _new_folder(path)

    def place(self, replace: bool = False) -> None:
        """Move the folder to `path`; with `replace` an existing `path` is removed, but only if the move succeeds."""
        self.folder.chmod(0o755)
        aside = self.folder.with_name(self.folder.name + _ASIDE)
        if replace and self.path.exists():
            os.rename(self.path, aside)
        try:
            os.rename(self.folder, self.path)
        except BaseException:
            if aside.exists() and not self.path.exists():
                os.rename(aside, self.path)
            shutil.rmtree(aside, ignore_errors=True)
            raise
        self._unlock(self.path)
        shutil.rmtree(aside, ignore_errors=True)

    def remove(self) -> None:
        """Remove the folder; no effect once it is in place."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._unlock(self.folder)

    def _unlock(self, folder: Path) -> None:
        if self._lock is not None:
            (folder / LOCK_FILE).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


def remove_leftovers(path: Path) -> None:
    """Remove what killed builders of `path` have left, and restore a folder that one of them was about to replace."""
    for folder in _leftovers(path, ""):
        with contextlib.suppress(OSError), _lock_leftover(folder) as dead:
            if dead:
                aside = folder.with_name(folder.name + _ASIDE)
                if aside.exists() and not path.exists():
                    os.rename(aside, path)
                shutil.rmtree(folder, ignore_errors=True)
    for aside in _leftovers(path, _ASIDE):
        if path.exists() and not aside.with_name(aside.name.removesuffix(_ASIDE)).exists():
            shutil.rmtree(aside, ignore_errors=True)


def _leftovers(path: Path, ending: str) -> list[Path]:
    if not path.parent.is_dir():
        return []
    prefix = f".{path.name}-"
    length = len(prefix) + _SUFFIX + len(ending)
    return [
        entry
        for entry in path.parent.iterdir()
        if entry.name.startswith(prefix) and entry.name.endswith(ending) and len(entry.name) == length
    ]


def _new_folder(path: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        # Another builder may mistake the folder for a killed one's before its lock is held: then a new one is made.
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            if try_lock(descriptor) is not False and (folder / LOCK_FILE).exists():
                return folder, descriptor
            os.close(descriptor)


@contextlib.contextmanager
def _lock_leftover(folder: Path) -> Iterator[bool]:
    """Try to lock a folder whose builder has died: True on success, False if it is running or that is unknown."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR)
    except FileNotFoundError:
        folder.rmdir()  # fails unless it is empty: left by a builder that was killed before it had a lock
        yield False
        return
    try:
        yield bool(try_lock(descriptor))
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool | None:
    """Whether the lock was free and is now held; None if the file system does not support locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
