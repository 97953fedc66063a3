"""The lock of a run folder, which allows one command at a time, names its owner, and is freed when the owner dies.

The folder's `.lock` is locked by the kernel (flock), which frees it when its owner dies, and contains the owner's
identity. Some file systems do not share such locks between machines, or have none, and a scheduler may restart a run on
another machine: so the owner also touches the file every few seconds, and an owner on another machine that has stopped
doing so is considered dead.
"""

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from ringrl.data.building import try_lock
from ringrl.errors import RingRLError

LOCK_FILE = ".lock"
TOUCH_SECONDS = 5.0
DEAD_SECONDS = 30.0  # without a touch by an owner on another machine


@contextlib.contextmanager
def run_lock(folder: Path, command: str, say: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Context that holds a run folder for `command`; the folder is created if missing.

    Waits up to `DEAD_SECONDS`, after a message to `say`, if the last owner was on another machine and may be alive.
    Raises RingRLError, which names the owner, if one is alive, and if the folder cannot be written.
    """
    path = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RingRLError(
            f"{folder} cannot be written ({error.strerror}): choose another folder by hydra.run.dir=FOLDER."
        ) from error
    stop, held = threading.Event(), False
    try:
        locked = try_lock(descriptor)
        owner = _read_owner(path)
        owner = owner if "process" in owner else {}
        if locked is False or (owner and _may_live(owner, path, locked, say)):
            raise RingRLError(
                f"{folder} is in use by {describe_owner(owner)}: wait until that has ended, or choose another folder "
                "by hydra.run.dir=FOLDER."
            )
        _write_owner(descriptor, {**this_process(), "command": command, "since": time.strftime("%Y-%m-%d %H:%M:%S")})
        held = True
        threading.Thread(target=_keep_touching, args=(path, stop), name="run lock", daemon=True).start()
        yield
    finally:
        stop.set()
        if held:
            _write_owner(descriptor, {"command": command})
        os.close(descriptor)


def last_command(folder: Path) -> str | None:
    """The command that holds a folder, or held it last; None if unknown."""
    command = _read_owner(folder / LOCK_FILE).get("command")
    return command if isinstance(command, str) else None


def describe_owner(owner: dict[str, Any]) -> str:
    """Describe the owner of a folder, for a message."""
    if not owner:
        return "another process"
    return (
        f"`ringrl {owner.get('command', '?')}` (process {owner.get('process', '?')} on {owner.get('host', '?')}, since "
        f"{owner.get('since', '?')})"
    )


def this_process() -> dict[str, Any]:
    """Identity of this process: unique among the machine's processes, other machines, and earlier boots."""
    process = os.getpid()
    return {"host": socket.gethostname(), "boot": _read_boot_id(), "process": process, "started": _start_time(process)}


def _read_boot_id() -> str:
    """The boot id of the machine; empty if the system does not have one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _start_time(process: int) -> float | None:
    """The start time of a process; None if there is no process of that number."""
    try:
        return psutil.Process(process).create_time()
    except psutil.Error:
        return None


def _read_owner(path: Path) -> dict[str, Any]:
    """The owner recorded in the file: only `command` if it ended normally; empty if it was killed while writing."""
    try:
        owner = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _write_owner(descriptor: int, owner: dict[str, Any]) -> None:
    """Write the owner in place, because a new file would not be locked. A failure does not affect the lock itself."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)


def _may_live(owner: dict[str, Any], path: Path, locked: bool | None, say: Callable[[str], None]) -> bool:
    """Whether the owner recorded in the file, whose kernel lock is not visible here, may be alive."""
    here = this_process()
    if (owner.get("host"), owner.get("boot")) == (here["host"], here["boot"]):
        # The kernel that ran the owner would show its lock: the process itself is checked only without such locks.
        process = owner.get("process")
        return locked is None and isinstance(process, int) and _start_time(process) == owner.get("started")
    before, waited = _read_modification_time(path), _seconds_since_touch(path)
    if waited < DEAD_SECONDS:
        say(
            f"{path.parent} was last used by {describe_owner(owner)}: waiting up to {DEAD_SECONDS:.0f} s to see "
            "whether that lives."
        )
    until = time.monotonic() + DEAD_SECONDS - waited
    while time.monotonic() < until:
        time.sleep(min(1.0, DEAD_SECONDS / 10))
        if _read_modification_time(path) != before:
            return True
    return False


def _read_modification_time(path: Path) -> int:
    """Modification time of the file, reopened because a network file system may cache attributes."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns


def _seconds_since_touch(path: Path) -> float:
    """Seconds since the last touch, by the file system's clock, which all machines share; 0 if unavailable."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as now:
            os.utime(now.fileno())
            return max((os.fstat(now.fileno()).st_mtime_ns - _read_modification_time(path)) / 1e9, 0.0)
    except OSError:
        return 0.0


def _keep_touching(path: Path, stop: threading.Event) -> None:
    while not stop.wait(TOUCH_SECONDS):
        with contextlib.suppress(OSError):  # the folder may have been removed
            os.utime(path)
