"""Folders that hold no ExoRL set, files that cannot be read, full disks, and stores that exist."""

import errno
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from exorl_files import build, check_refused, save_three_files
from toy_relabel import Toy

from ringrl.data import column_writer
from ringrl.errors import RingRLError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_three_files(tmp_path / "set")


def test_a_limit_of_none_at_all(folder):
    with pytest.raises(RingRLError, match="limit=0: read at least one episode"):
        build(folder, limit=0)


def test_no_folder(tmp_path):
    assert "there is no such folder; give the folder of" in check_refused(tmp_path / "set")


def test_a_file_for_a_folder(tmp_path):
    (tmp_path / "set").write_text("")
    assert "is a file; give the folder that holds" in check_refused(tmp_path / "set")


def test_no_episodes(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "README.md").write_text("")
    assert "holds no episode, which would be a file *_<index>_<length>.npz: give" in check_refused(tmp_path / "set")
    (tmp_path / "set" / "buffer").mkdir()
    assert f"did you mean {tmp_path}/set/buffer?" in check_refused(tmp_path / "set")


def test_an_unreadable_file(folder, monkeypatch):
    def denied(path, *rest):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(zipfile, "ZipFile", denied)
    assert "episode_000000_3.npz: cannot be read (Permission denied); make it readable" in check_refused(folder)


def full_disk(*arguments, **keywords):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_in_mid_import(folder, monkeypatch):
    monkeypatch.setattr(column_writer.ColumnWriter, "append", full_disk)
    with pytest.raises(RingRLError, match=r"store: the disk is full.*RINGRL_DATA"):
        build(folder)
    assert os.listdir(folder.parent) == ["set"]


def test_a_full_disk_when_rewards_are_kept(folder, monkeypatch):
    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(RingRLError, match="the disk is full"):
        build(folder, relabel=Toy())
    assert os.listdir(folder.parent) == ["set"]


def test_a_store_that_is_there_is_left(folder):
    first = build(folder)
    with pytest.raises(RingRLError, match=r"store: already exists"):
        build(folder, relabel=Toy())
    assert sorted(os.listdir(folder.parent)) == ["set", "store"]
    assert build(folder, overwrite=True, relabel=Toy()).fingerprint != first.fingerprint
