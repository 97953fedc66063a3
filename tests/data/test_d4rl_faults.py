"""Errors for invalid D4RL files: one line that names file, column and row, and nothing written."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from d4rl_episodes import HOPPER, fabricate
from d4rl_files import d4rl_columns, write_columns, write_d4rl_file

from ringrl.data import column_writer
from ringrl.data.sources import d4rl as source
from ringrl.data.sources import d4rl_columns as source_columns
from ringrl.data.sources.d4rl import build_from_d4rl
from ringrl.errors import RingRLError


def replaced(name, values):
    def change(columns):
        columns[name] = values(columns[name])

    return change


def removed(name):
    return lambda columns: columns.pop(name)


def poked(name, row, value):
    def change(columns):
        columns[name] = columns[name].astype(np.float64)
        columns[name][row] = value

    return change


COMPOUND = np.dtype([("x", np.float32), ("y", np.float32)])
BAD_COLUMNS = {
    "no observations": (removed("observations"), "the column observations is missing"),
    "no actions": (removed("actions"), "the column actions is missing"),
    "no rewards": (removed("rewards"), "the column rewards is missing"),
    "no terminals": (removed("terminals"), "the column terminals is missing"),
    "short actions": (replaced("actions", lambda x: x[:-1]), "actions: 15 rows, but rewards has 16"),
    "short timeouts": (replaced("timeouts", lambda x: x[:3]), "timeouts: 3 rows, but rewards has 16"),
    "long observations": (replaced("observations", lambda x: np.concatenate([x, x[:1]])), "observations: 17 rows"),
    "text": (replaced("rewards", lambda x: x.astype("S8")), r"rewards: holds \|S8"),
    "compound": (replaced("actions", lambda x: np.zeros(16, COMPOUND)), r"actions: holds \[\('x'"),
    "complex": (replaced("rewards", lambda x: x.astype(complex)), "rewards: holds complex128"),
    "wrong observation size": (replaced("observations", lambda x: x[:, :9]), "has 11 numbers a row"),
    "wrong action size": (replaced("actions", lambda x: x[:, :2]), "has 3 numbers a row"),
    "flat observations": (replaced("observations", lambda x: x[:, 0]), "has 11 numbers a row"),
    "two rewards a row": (replaced("rewards", lambda x: np.stack([x, x], 1)), "expected one number a row"),
    "no rows": (replaced("rewards", lambda x: x[:0]), "rewards: the column has no rows"),
    "NaN": (poked("observations", (7, 2), np.nan), r"episode 2 \(rows 6 to 12\), step 1: observations holds nan"),
    "infinite": (poked("rewards", 0, np.inf), r"episode 0 \(rows 0 to 4\), step 0: rewards holds inf"),
    "beyond float32": (poked("rewards", 5, 1e300), r"episode 1 \(rows 5 to 5\), step 0: rewards holds inf"),
    "action out of bounds": (poked("actions", (13, 1), 1.5), r"episode 3 \(rows 13 to 15\), step 0: action 1.5"),
    "marker of two": (poked("terminals", 4, 2.0), "terminals, row 4: 2.0 is neither 0 nor 1"),
    "marker not a number": (poked("terminals", 4, np.nan), "terminals, row 4: nan is neither 0 nor 1"),
}


def refused(file, store, match, task=HOPPER):
    """One line, and the folder of the store as it was."""
    before = sorted(path.name for path in store.parent.iterdir())
    with pytest.raises(RingRLError, match=match) as caught:
        build_from_d4rl(file, task, store)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    assert sorted(path.name for path in store.parent.iterdir()) == before


@pytest.mark.parametrize(("change", "match"), BAD_COLUMNS.values(), ids=BAD_COLUMNS)
def test_faulty_columns_are_refused_in_one_line(tmp_path, change, match):
    columns = d4rl_columns(fabricate())
    change(columns)
    (tmp_path / "stores").mkdir()
    refused(write_columns(tmp_path / "bad.hdf5", columns), tmp_path / "stores" / "bad", match)


def _object_column(path):
    with h5py.File(path, "a") as file:
        del file["rewards"]
        file.create_dataset("rewards", data=["a"] * 16, dtype=h5py.string_dtype())


def _group(path):
    with h5py.File(path, "a") as file:
        del file["actions"]
        file.create_group("actions")


def _external_link(path):
    outside = path.with_name("outside.hdf5")
    path.rename(outside)
    with h5py.File(outside) as all_of_it, h5py.File(path, "w") as file:
        for name in ("actions", "rewards", "terminals", "timeouts"):
            all_of_it.copy(name, file)
        file["observations"] = h5py.ExternalLink(outside.name, "/observations")


def _soft_link(path):
    with h5py.File(path, "a") as file:
        file.move("rewards", "elsewhere")
        file["rewards"] = h5py.SoftLink("/elsewhere")


def _external_storage(path):
    raw = path.with_name("rewards.raw")
    raw.write_bytes(np.ones(16, np.float32).tobytes())
    with h5py.File(path, "a") as file:
        del file["rewards"]
        file.create_dataset("rewards", (16,), np.float32, external=[(str(raw), 0, 64)])


def _virtual(path):
    layout = h5py.VirtualLayout((16,), np.float32)
    layout[:] = h5py.VirtualSource(str(path.with_name("other.hdf5")), "rewards", (16,))
    with h5py.File(path, "a") as file:
        del file["rewards"]
        file.create_virtual_dataset("rewards", layout)


def _cut_short(path):
    path.write_bytes(path.read_bytes()[:-200])


def _damaged_inside(path):
    with h5py.File(path) as file:
        info = file["observations"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[info.byte_offset : info.byte_offset + info.size] = os.urandom(info.size)
    path.write_bytes(content)


def _text(path):
    path.write_text("not an HDF5 file")


def _empty(path):
    path.write_bytes(b"")


def _folder(path):
    path.unlink()
    path.mkdir()


BAD_FILES = {
    "strings": (_object_column, "rewards: holds object where numbers"),
    "group": (_group, "actions: a group where a column"),
    "external link": (_external_link, "observations: a link, which is not followed"),
    "soft link": (_soft_link, "rewards: a link, which is not followed"),
    "external storage": (_external_storage, "rewards: its numbers are in other files"),
    "virtual": (_virtual, "rewards: its numbers are in other files"),
    "cut short": (_cut_short, "not an HDF5 file, or cut short"),
    "damaged inside": (_damaged_inside, "observations: cannot be read"),
    "text": (_text, "not an HDF5 file, or cut short"),
    "empty": (_empty, "not an HDF5 file, or cut short"),
    "folder": (_folder, "not a file"),
    "missing": (Path.unlink, "there is no such file"),
}


@pytest.mark.parametrize(("change", "match"), BAD_FILES.values(), ids=BAD_FILES)
def test_faulty_files_are_refused_in_one_line(tmp_path, change, match):
    file = write_d4rl_file(tmp_path / "bad.hdf5", fabricate())
    change(file)
    (tmp_path / "stores").mkdir()
    refused(file, tmp_path / "stores" / "bad", match)


def test_an_unreadable_file_is_refused(tmp_path, monkeypatch):
    file = write_d4rl_file(tmp_path / "bad.hdf5", fabricate())

    def refuse(*_, **__):  # the mode of a file does not bind a superuser, who may run this
        raise PermissionError(errno.EACCES, "unable to open file", str(file))

    monkeypatch.setattr(h5py, "File", refuse)
    (tmp_path / "stores").mkdir()
    refused(file, tmp_path / "stores" / "bad", "may not be read")


def test_a_file_without_ends_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "LONGEST", 10)
    columns = d4rl_columns(fabricate(lengths=(3, 30), ended=(True, False)))
    columns["timeouts"][:] = False
    (tmp_path / "stores").mkdir()
    monkeypatch.setattr(source_columns, "BLOCK_ROWS", 16)
    match = "rows 3 to 15: no end of an episode in 10 rows"
    refused(write_columns(tmp_path / "bad.hdf5", columns, None), tmp_path / "stores" / "bad", match)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(column_writer.ColumnWriter, "append", full)
    file = write_d4rl_file(tmp_path / "file.hdf5", fabricate())
    (tmp_path / "stores").mkdir()
    with pytest.raises(RingRLError, match="the disk is full"):
        build_from_d4rl(file, HOPPER, tmp_path / "stores" / "store")
    assert list((tmp_path / "stores").iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from ringrl.data.sources import d4rl_columns
from ringrl.data.sources.d4rl import build_from_d4rl
d4rl_columns.BLOCK_ROWS = 100
build_from_d4rl(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_an_import_that_was_killed_starts_again_and_makes_the_same_store(tmp_path):
    episodes = fabricate(lengths=(50,) * 10, ended=(False,) * 10)
    file = write_d4rl_file(tmp_path / "file.hdf5", episodes, compression=None)
    expected = build_from_d4rl(file, HOPPER, tmp_path / "expected").fingerprint
    stores = tmp_path / "stores"
    stores.mkdir()
    command = [sys.executable, "-c", KILLED, str(file), HOPPER, str(stores / "store")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not (stores / "store").exists()
    assert list(stores.iterdir())  # what the killed one left
    store = build_from_d4rl(file, HOPPER, stores / "store")
    assert store.fingerprint == expected
    assert [path.name for path in stores.iterdir()] == ["store"]
