"""Errors for malformed and malicious ExoRL files: one line that names file, key and step, and nothing written."""

import os
import re
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from exorl_files import check_refused, make_arrays, save, save_three_files
from toy_relabel import Failing, Toy, weighted_sum

from ringrl.data.sources.npz import read_npz
from ringrl.errors import RingRLError

SECOND = "episode_000001_3.npz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_three_files(tmp_path / "set")


class Malicious:
    """Creates the file `planted` when it is unpickled."""

    def __init__(self, planted: Path) -> None:
        self.planted = planted

    def __reduce__(self):
        return os.mkdir, (str(self.planted),)


def intact(folder: Path) -> None:
    """No damage to the arrays."""


def saved(**changes):
    """Replace arrays of the second file."""

    def damage(folder: Path) -> None:
        save(folder / SECOND, make_arrays() | changes)

    return damage


def edited(key: str, place: tuple[int, int], value: float):
    def damage(folder: Path) -> None:
        values = make_arrays()
        values[key][place] = value
        save(folder / SECOND, values)

    return damage


def without(key: str):
    def damage(folder: Path) -> None:
        save(folder / SECOND, {name: values for name, values in make_arrays().items() if name != key})

    return damage


def as_bytes(change):
    def damage(folder: Path) -> None:
        (folder / SECOND).write_bytes(change((folder / SECOND).read_bytes()))

    return damage


def renamed(name: str):
    def damage(folder: Path) -> None:
        (folder / SECOND).rename(folder / name)

    return damage


def copied(name: str):
    def damage(folder: Path) -> None:
        shutil.copy(folder / SECOND, folder / name)

    return damage


def directory(folder: Path) -> None:
    (folder / SECOND).unlink()
    (folder / SECOND).mkdir()


def dangling(folder: Path) -> None:
    (folder / SECOND).unlink()
    (folder / SECOND).symlink_to(folder / "nowhere")


def claims(size: int):
    """Say in the zip's directory that an array is of this size; zeros that expand to 16 MB are what it holds."""

    def damage(folder: Path) -> None:
        with zipfile.ZipFile(folder / SECOND, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("observation.npy", bytes(16 << 20))
            archive.infolist()[0].file_size = size

    return damage


def compressed_otherwise(folder: Path) -> None:
    with zipfile.ZipFile(folder / SECOND, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("observation.npy", bytes(1000))


def header(text: bytes):
    """An array with this text in its header."""

    def damage(folder: Path) -> None:
        with zipfile.ZipFile(folder / SECOND, "w") as archive:
            archive.writestr("observation.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)

    return damage


RELABEL = {"relabel": Toy()}
CASES = {
    "truncated": (as_bytes(lambda data: data[:-40]), {}, rf"{SECOND}: damaged, or not an npz file .*copy it anew"),
    "cut in half": (as_bytes(lambda data: data[: len(data) // 2]), {}, rf"{SECOND}: damaged, or not an npz file"),
    "a flipped bit": (as_bytes(lambda data: data[:180] + bytes([data[180] ^ 1]) + data[181:]), {}, "Bad CRC-32"),
    "empty": (as_bytes(lambda data: b""), {}, rf"{SECOND}: damaged"),
    "not a zip": (as_bytes(lambda data: b"x" * 1000), {}, rf"{SECOND}: damaged, or not an npz file \(BadZipFile"),
    "npy for npz": (as_bytes(lambda data: b"\x93NUMPY" + bytes(1000)), {}, rf"{SECOND}: damaged"),
    "no observation": (without("observation"), {}, rf"{SECOND}: holds no array 'observation', only 'action', 'reward'"),
    "no action": (without("action"), {}, rf"{SECOND}: holds no array 'action'.*record it"),
    "no reward": (without("reward"), {}, rf"{SECOND}: holds no array 'reward'"),
    "no discount": (without("discount"), {}, rf"{SECOND}: holds no array 'discount'"),
    "no physics": (without("physics"), RELABEL, rf"{SECOND}: holds no array 'physics'"),
    "nan observation": (edited("observation", (2, 1), np.nan), {}, rf"{SECOND}\W* step 2: observations holds nan"),
    "inf observation": (edited("observation", (0, 0), np.inf), {}, rf"{SECOND}\W* step 0: observations holds inf"),
    "beyond float32": (edited("observation", (1, 0), 1e300), {}, rf"{SECOND}\W* step 1: observations holds inf"),
    "nan action": (edited("action", (1, 1), np.nan), {}, rf"{SECOND}\W* step 0: actions holds nan"),
    "action out of bounds": (
        edited("action", (3, 1), 1.5),
        {},
        rf"{SECOND}\W* step 2: action 1.5 in dimension 1 is out",
    ),
    "inf reward": (edited("reward", (3, 0), -np.inf), {}, rf"{SECOND}\W* step 2: rewards holds -inf"),
    "nan discount": (edited("discount", (3, 0), np.nan), {}, rf"{SECOND}, step 2: 'discount' holds nan in row 3"),
    "nan physics": (edited("physics", (2, 3), np.nan), RELABEL, rf"{SECOND}, step 1: 'physics' holds nan in row 2"),
    "observation drift": (saved(observation=np.zeros((4, 5))), {}, rf"{SECOND}: 'observation' has 5 .*0_3.npz's has 3"),
    "physics drift": (
        saved(physics=np.zeros((4, 7))),
        {"relabel": weighted_sum},
        rf"{SECOND}: 'physics' has 7 columns, episode_000000_3.npz's has 4",
    ),
    "action size": (saved(action=np.zeros((4, 3))), {}, rf"{SECOND}: 'action' has 3 columns, ringrl/dmc_\S+ has 2;"),
    "flat observation": (
        saved(observation=np.zeros(4)),
        {},
        rf"{SECOND}: 'observation' has shape \(4,\), expected \(4, c",
    ),
    "images": (saved(observation=np.zeros((4, 3, 2))), {}, rf"{SECOND}: 'observation' has shape \(4, 3, 2\)"),
    "a number": (saved(reward=np.float64(1.0)), {}, rf"{SECOND}: 'reward' has shape \(\), expected \(4,\)"),
    "wide reward": (saved(reward=np.zeros((4, 2))), {}, rf"{SECOND}: 'reward' has shape \(4, 2\), expected \(4,\)"),
    "a row short": (saved(reward=np.zeros((3, 1))), {}, rf"{SECOND}: 'reward' has shape \(3, 1\), expected \(4,\)"),
    "length of name": (
        renamed("episode_1_2.npz"),
        {},
        r"episode_1_2.npz: 'observation' has shape \(4, 3\), expected \(3",
    ),
    "longer than it may be": (renamed("episode_1_10.npz"), {}, r"1_10.npz: the name says 10 steps, .* have 9 at most"),
    "no steps": (renamed("episode_1_0.npz"), {}, r"the name 'episode_1_0.npz' says that it has no steps"),
    "duplicate index": (copied("other_01_3.npz"), {}, r"other_01_3.npz: has the index of episode_000001_3.npz"),
    "no index": (
        copied("episode_3.npz"),
        {},
        r"the name 'episode_3.npz' does not end in _<index>_<length>.npz; rename",
    ),
    "negative index": (copied("episode_-1_3.npz"), {}, r"the name 'episode_-1_3.npz' does not end in"),
    "line break": (copied("a\nb_7_3.npz"), {}, r"the name 'a\\nb_7_3.npz' does not end in"),
    "strings": (saved(action=np.full((4, 2), "fast")), {}, rf"{SECOND}: 'action' holds <U4, not numbers"),
    "complex": (saved(action=np.zeros((4, 2), complex)), {}, rf"{SECOND}: 'action' holds complex128, not numbers"),
    "records": (saved(reward=np.zeros(4, [("a", "f4")])), {}, rf"{SECOND}: 'reward' holds .*not numbers"),
    "objects": (
        saved(reward=np.array([1.0, None, 2.0, "x"])),
        {},
        rf"{SECOND}: 'reward' holds Python objects, which are",
    ),
    "a directory": (directory, {}, rf"{SECOND}: cannot be read \(Is a directory\)"),
    "a dangling link": (dangling, {}, rf"{SECOND}: cannot be read \(No such file"),
    "bomb": (claims(16 << 20), {}, rf"{SECOND}: 'observation' says it takes 16777216 bytes, 262144 are the most"),
    "bomb that lies": (claims(1000), {}, rf"{SECOND}: damaged"),
    "other compression": (compressed_otherwise, {}, rf"{SECOND}: damaged.*compressed in a way that numpy does not use"),
    "no header": (header(b""), {}, rf"{SECOND}: damaged"),
    "code in the header": (header(b"__import__('os').abort()"), {}, rf"{SECOND}: damaged"),
    "nested header": (header(b"(" * 5000), {}, rf"{SECOND}: damaged"),
    "shape of its own": (
        header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 3)}\n"),
        {},
        rf"{SECOND}: damaged.* says shape \(99999999999, 3\) float32, and holds 0 bytes",
    ),
    "relabeller fails": (
        intact,
        {"relabel": Failing(at=1)},
        rf"{SECOND}: .*ValueError: the simulator has di",
    ),
    "relabeled nan": (
        intact,
        {"relabel": Failing(at=1, how="nan")},
        rf"{SECOND}\W* step 0: rewards holds n",
    ),
    "relabeled short": (
        intact,
        {"relabel": Failing(at=1, how="short")},
        rf"{SECOND}: .* have shape \(3,\), e",
    ),
    "physics of another domain": (
        intact,
        {"relabel": Toy(physics_size=18)},
        r"'physics' has 4 .*_stand-v0's has 18",
    ),
    "observations as told": (intact, {"observation_size": 5}, r"'observation' has 3 .* has 5"),
    "observations of another": (
        intact,
        {"relabel": Toy(observation_size=24)},
        r"'observation' has 3 .*s has 24",
    ),
}


@pytest.mark.parametrize(("damage", "changes", "message"), CASES.values(), ids=CASES)
def test_a_faulty_file_is_one_line_and_leaves_nothing(folder, damage, changes, message):
    damage(folder)
    assert re.search(message, said := check_refused(folder, **changes)), said


def test_objects_are_not_unpickled(folder):
    planted = folder.parent / "planted"
    malicious = np.empty((4, 1), object)
    malicious[:] = Malicious(planted)
    for key in make_arrays():
        save(folder / SECOND, make_arrays() | {key: malicious})
        changes = {"relabel": Toy()} if key == "physics" else {}
        assert f"{SECOND}: {key!r} holds Python objects, which are never unpickled: save it" in check_refused(
            folder, **changes
        )
    assert not planted.exists()
    with np.load(folder / SECOND, allow_pickle=True) as archive:  # the test does test something
        _ = archive["physics"]
    assert planted.exists()


@pytest.mark.parametrize("size", [16 << 20, 1000])
def test_a_bomb_is_not_expanded(folder, size):
    claims(size)(folder)
    tracemalloc.start()
    try:
        check_refused(folder)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20  # of which the store's buffers are 4
    finally:
        tracemalloc.stop()


def test_any_damage_is_one_line(folder):
    """A flipped byte, or an end cut off, is refused or leaves the numbers as they were."""
    whole, path = (folder / SECOND).read_bytes(), folder / SECOND
    rng = np.random.default_rng(0)
    lines = []
    for trial in range(150):
        data = bytearray(whole)
        for place in rng.integers(len(data), size=1 + trial % 3):
            data[place] = rng.integers(256)
        path.write_bytes(data if trial % 5 else data[: rng.integers(len(data))])
        try:
            read = read_npz(path, list(make_arrays()), 1 << 16)
        except RingRLError as error:
            lines.append(str(error))
        else:
            for key, values in make_arrays().items():
                np.testing.assert_array_equal(read[key], values)
    assert 50 < len(lines) < 150
    assert all(str(path) in line and "\n" not in line for line in lines)
