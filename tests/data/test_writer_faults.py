"""Killed writers, full disks, and stores that are replaced."""

import errno
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from many_episodes import DISCRETE, append_in_chunks, make_episodes

from ringrl.data import EpisodeStore, EpisodeStoreWriter, column_writer
from ringrl.data import store_writer as writer_module
from ringrl.errors import RingRLError

SUPPORT = Path(__file__).resolve().parents[1] / "support"
KILLED_IN_MID_WRITE = """
    import os, signal, sys, time
    from ringrl.data import EpisodeStoreWriter
    from many_episodes import DISCRETE, append_in_chunks, make_episodes

    given = make_episodes(DISCRETE, count=400, longest=300)

    def start_writing(path):
        process = os.fork()
        if not process:
            with EpisodeStoreWriter(path, 3, DISCRETE, source="a test") as writer:
                append_in_chunks(writer, given, 7)
                open(path + f".{os.getpid()}", "w").close()
                time.sleep(60)
            os._exit(1)
        while not os.path.exists(path + f".{process}"):
            time.sleep(0.01)
        os.remove(path + f".{process}")
        return process

    path = sys.argv[1]
    dead, living = start_writing(path), start_writing(path)
    print(len(os.listdir(os.path.dirname(path))))
    os.kill(dead, signal.SIGKILL)
    os.waitpid(dead, 0)
    with EpisodeStoreWriter(path, 3, DISCRETE, source="a test") as writer:
        append_in_chunks(writer, given, 11)
        print(writer.finish().fingerprint)
    print(*sorted(name[:7] for name in os.listdir(os.path.dirname(path))))
    os.kill(living, signal.SIGKILL)
    os.waitpid(living, 0)
"""


def test_a_killed_writer_is_cleaned_up_after_and_a_living_one_let_be(tmp_path):
    given = make_episodes(DISCRETE, count=400, longest=300)
    with EpisodeStoreWriter(tmp_path / "undisturbed", 3, DISCRETE, source="a test") as writer:
        append_in_chunks(writer, given, 13)
        fingerprint = writer.finish().fingerprint
    (tmp_path / "cache").mkdir()
    path = tmp_path / "cache" / "store"
    command = [sys.executable, "-c", textwrap.dedent(KILLED_IN_MID_WRITE), str(path)]
    done = subprocess.run(command, cwd=SUPPORT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # Two were at it; of the dead one nothing is left when the third has finished, the living one's folder is there.
    assert done.stdout.split("\n")[:3] == ["2", fingerprint, ".store- store"]
    with pytest.raises(RingRLError, match="already exists"):
        write_store(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["store"]
    assert EpisodeStore.open(path).fingerprint == fingerprint


def write_store(path: Path, reward: float = 1.0, finish: bool = True, **changes) -> EpisodeStore | None:
    with EpisodeStoreWriter(path, 1, DISCRETE, **changes) as writer:
        writer.append(np.zeros((3, 1)), np.zeros(3, int), np.full(3, reward))
        return writer.finish() if finish else None


def test_an_empty_leftover_goes_and_what_is_not_ours_stays(tmp_path):
    (tmp_path / ".store-abcdefgh").mkdir()
    for name in (".store-notalock", ".store-x", ".stored-abcdefgh"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    write_store(tmp_path / "store")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        ".store-notalock",
        ".store-x",
        ".stored-abcdefgh",
        "store",
    ]


def test_overwriting_replaces_the_store_when_it_is_finished(tmp_path):
    old = write_store(tmp_path / "store", 1.0)
    assert old is not None
    write_store(tmp_path / "store", 2.0, finish=False, overwrite=True)
    assert EpisodeStore.open(tmp_path / "store").fingerprint == old.fingerprint
    new = write_store(tmp_path / "store", 2.0, overwrite=True)
    assert new is not None
    np.testing.assert_array_equal(new.returns, [6])
    np.testing.assert_array_equal(old.rewards, np.ones(3))  # who reads the old one goes on
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]
    assert write_store(tmp_path / "new", overwrite=True) is not None


def test_the_old_store_stays_when_the_new_one_cannot_be_moved_in(tmp_path, monkeypatch):
    old = write_store(tmp_path / "store", 1.0)
    rename = os.rename

    def fail(source, target):
        if Path(target) == tmp_path / "store" and not str(source).endswith(".old"):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(RingRLError, match="cannot be written \\(Input/output error\\)"):
        write_store(tmp_path / "store", 2.0, overwrite=True)
    assert EpisodeStore.open(tmp_path / "store").fingerprint == old.fingerprint
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_a_writer_killed_while_it_replaced_a_store_loses_neither(tmp_path):
    old = write_store(tmp_path / "store", 1.0)
    leftover = tmp_path / ".store-abcdefgh"
    leftover.mkdir()
    (leftover / "writer.lock").touch()
    (tmp_path / "store").rename(tmp_path / ".store-abcdefgh.old")
    with pytest.raises(RingRLError, match="already exists"):
        write_store(tmp_path / "store")
    assert EpisodeStore.open(tmp_path / "store").fingerprint == old.fingerprint
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_what_is_no_store_is_not_overwritten(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    with pytest.raises(RingRLError, match=r"folder: not a store alone \(thesis.tex is there\), so it is not overwri"):
        write_store(tmp_path / "folder", overwrite=True)
    with pytest.raises(RingRLError, match=r"file: not a store alone \(no folder is there\)"):
        write_store(tmp_path / "file", overwrite=True)
    assert (tmp_path / "folder" / "thesis.tex").exists()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("threads", [False, True])
def test_a_full_disk_in_mid_write_leaves_the_cache_as_it_was(tmp_path, monkeypatch, threads):
    monkeypatch.setattr(writer_module, "THREAD_BYTES", 0 if threads else 1 << 30)
    old = write_store(tmp_path / "store")
    real, calls = column_writer.ColumnWriter.append, []

    def fill(self, rows):
        calls.append(rows)
        if len(calls) > 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, rows)

    monkeypatch.setattr(column_writer.ColumnWriter, "append", fill)
    given = make_episodes(DISCRETE, 30, 9)
    with (
        pytest.raises(RingRLError, match=r"store: the disk is full. Free some space, or point RINGRL_DATA") as caught,
        EpisodeStoreWriter(tmp_path / "store", 3, DISCRETE, overwrite=True) as writer,
    ):
        append_in_chunks(writer, given, 3)
    assert "\n" not in str(caught.value)
    assert EpisodeStore.open(tmp_path / "store").fingerprint == old.fingerprint
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_a_file_limit_in_mid_write_gives_one_line(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with (
            pytest.raises(RingRLError, match=r"store: cannot be written \(File too large\)"),
            EpisodeStoreWriter(tmp_path / "store", 30, DISCRETE) as writer,
        ):
            writer.append_many(np.zeros((20_000, 30)), np.zeros(20_000, int), np.ones(20_000), [20_000], terminated=[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["mkdir", "open"])
def test_a_cache_that_cannot_be_written_gives_one_line(tmp_path, monkeypatch, what):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, what, refuse)
    with pytest.raises(RingRLError, match=r"store: cannot be written \(Permission denied\). Make its folder") as caught:
        EpisodeStoreWriter(tmp_path / "store", 3, DISCRETE)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
