"""Atomic writing of files."""

import errno
import os
from pathlib import Path

import pytest

from ringrl.errors import RingRLError
from ringrl.files import replacing, write_atomically


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RingRLError, match="cannot be written"):
        write_atomically(path / "x", "new")  # a file where a folder is needed

    def disk_full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", disk_full)
    with pytest.raises(RingRLError, match=r"file cannot be written .No space left on device"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_interrupted_leaves_nothing_and_what_ends_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "film.mp4"

    def interrupt(file: Path) -> None:
        file.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        interrupt(temporary)
    assert list(path.parent.iterdir()) == []
    with replacing(path) as temporary:
        assert temporary.suffix == ".mp4", "which tells an encoder what to write"
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]
