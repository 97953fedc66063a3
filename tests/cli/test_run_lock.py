"""The lock of a run folder: its owner, and its release when the owner dies."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ringrl.cli import run_lock as run_lock_module
from ringrl.cli.run_lock import LOCK_FILE, last_command, run_lock, this_process
from ringrl.errors import RingRLError

HOLDER = """
import sys, time
from pathlib import Path
from ringrl.cli.run_lock import run_lock
with run_lock(Path(sys.argv[1]), "train"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """A process that holds the folder `tmp_path / "run"`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def quick(monkeypatch) -> None:
    """Shorter times: a remote owner is dead after a fifth of a second, and touches its lock every hundredth."""
    monkeypatch.setattr(run_lock_module, "DEAD_SECONDS", 0.2)
    monkeypatch.setattr(run_lock_module, "TOUCH_SECONDS", 0.01)


@pytest.fixture
def without_flock(monkeypatch) -> None:
    """A file system that has no locks."""

    def refuse(descriptor: int, flags: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)


def write_owner(folder: Path, **owner) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOCK_FILE).write_text(json.dumps({**this_process(), "command": "train", "since": "noon", **owner}))


def test_a_living_owner_is_named_and_a_killed_one_keeps_nothing(holder, tmp_path: Path) -> None:
    folder, owner = tmp_path / "run", rf"in use by `ringrl train` \(process {holder.pid} on .*wait until"
    with pytest.raises(RingRLError, match=owner) as caught, run_lock(folder, "eval"):
        pytest.fail("it is held")
    assert "\n" not in str(caught.value)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    said = []
    with run_lock(folder, "train", said.append):
        assert json.loads((folder / LOCK_FILE).read_text())["process"] == os.getpid()
    assert said == [], "on its own machine nobody has to wait for it"


def test_two_in_one_process_exclude_each_other_and_an_end_frees(tmp_path: Path) -> None:
    with (
        run_lock(tmp_path / "a", "train"),
        run_lock(tmp_path / "b", "train"),
        pytest.raises(RingRLError, match="in use"),
        run_lock(tmp_path / "a", "train"),
    ):
        pass
    with pytest.raises(ValueError, match="a fault"), run_lock(tmp_path / "a", "train"):
        raise ValueError("a fault")
    assert last_command(tmp_path / "a") == "train"
    with run_lock(tmp_path / "a", "train"):
        pass
    assert json.loads((tmp_path / "a" / LOCK_FILE).read_text()) == {"command": "train"}
    assert last_command(tmp_path / "never") is None


def test_an_owner_on_another_machine_that_touches_its_lock_lives(quick, tmp_path: Path) -> None:
    """Locks of the other machine are not visible here."""
    write_owner(tmp_path, host="node7", boot="another", process=4321)
    stop, said = threading.Event(), []
    thread = threading.Thread(target=run_lock_module._keep_touching, args=(tmp_path / LOCK_FILE, stop))
    thread.start()
    try:
        with (
            pytest.raises(RingRLError, match="process 4321 on node7, since noon"),
            run_lock(tmp_path, "train", said.append),
        ):
            pass
    finally:
        stop.set()
        thread.join()
    assert len(said) == 1
    assert "waiting up to" in said[0]


def test_an_owner_on_another_machine_that_is_silent_is_dead(quick, tmp_path: Path) -> None:
    """A scheduler has queued the run again, and on another node."""
    write_owner(tmp_path, host="node7", boot="another")
    began, said = time.monotonic(), []
    with run_lock(tmp_path, "train", said.append):
        assert time.monotonic() - began >= 0.15
    assert len(said) == 1
    write_owner(tmp_path, host="node7", boot="another")
    long_ago = time.time() - 3600
    os.utime(tmp_path / LOCK_FILE, (long_ago, long_ago))
    with run_lock(tmp_path, "train", said.append):
        assert len(said) == 1, "one that has long been silent is not waited for"


def test_without_the_kernels_locks_the_process_is_looked_for(without_flock, tmp_path: Path) -> None:
    write_owner(tmp_path, process=os.getpid())
    with pytest.raises(RingRLError, match=f"process {os.getpid()} on"), run_lock(tmp_path, "train"):
        pass
    write_owner(tmp_path, process=os.getpid(), started=1.0)  # another that had the same number
    with run_lock(tmp_path, "train"):
        pass
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write_owner(tmp_path, process=ended.pid, started=1.0)
    with run_lock(tmp_path, "train"):
        pass


def test_the_owner_touches_its_lock(quick, tmp_path: Path) -> None:
    with run_lock(tmp_path, "train"):
        before = (tmp_path / LOCK_FILE).stat().st_mtime_ns
        end = time.monotonic() + 10
        while (tmp_path / LOCK_FILE).stat().st_mtime_ns == before:
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.mark.parametrize("left", ["", "{", "[1]", "null"])
def test_what_a_killed_process_left_half_written_holds_nothing(tmp_path: Path, left: str) -> None:
    (tmp_path / LOCK_FILE).write_text(left)
    with run_lock(tmp_path, "train"):
        pass


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RingRLError, match="cannot be written"), run_lock(tmp_path / "file" / "run", "train"):
        pass
