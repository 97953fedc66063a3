"""What faulty ExoRL folders get: one line that names file, key and step, and nothing written."""

import errno
import os
import re
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from toy_relabel import Failing, Toy, weighted_sum

from ringrl.data import columns as columns_module
from ringrl.data.sources.exorl import build_from_exorl
from ringrl.data.sources.npz import read_npz
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec

ACTION = ActionSpec(ActionKind.continuous, 2, (-1.0, -1.0), (1.0, 1.0))
SECOND = "episode_000001_3.npz"


class Malicious:
    """Its pickle makes the file `planted` when it is loaded."""

    def __init__(self, planted: Path) -> None:
        self.planted = planted

    def __reduce__(self):
        return os.mkdir, (str(self.planted),)


def arrays(index: int = 1, steps: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(index)
    values = {"observation": rng.normal(size=(steps + 1, 3)), "action": rng.uniform(-1, 1, (steps + 1, 2))}
    values |= {"reward": rng.normal(size=(steps + 1, 1)), "discount": np.ones((steps + 1, 1))}
    values |= {"physics": rng.normal(size=(steps + 1, 4))}
    values["physics"][0, 0] = index
    return values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "set"
    path.mkdir()
    for index in range(3):
        save(path / f"episode_00000{index}_3.npz", arrays(index))
    return path


def build(folder: Path, **changes):
    keywords = {"task": "toy_stand", "action": ACTION, "environment": "ringrl/dmc_toy_stand-v0", "max_episode_steps": 9}
    return build_from_exorl(folder, folder.parent / "store", **(keywords | changes))


def refusal(folder: Path, **changes) -> str:
    """The one line that the folder gets; checks that it names the folder or a file in it, and that nothing is left."""
    before = sorted(os.listdir(folder.parent))
    with pytest.raises(RingRLError) as caught:
        build(folder, **changes)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert sorted(os.listdir(folder.parent)) == before
    return str(caught.value)


def intact(folder: Path) -> None:
    """The fault is elsewhere."""


def save(path: Path, values: dict[str, np.ndarray]) -> None:
    np.savez(path, allow_pickle=True, **values)


def saved(**changes):
    """Replace arrays of the second file."""

    def damage(folder: Path) -> None:
        save(folder / SECOND, arrays() | changes)

    return damage


def edited(key: str, place: tuple[int, int], value: float):
    def damage(folder: Path) -> None:
        values = arrays()
        values[key][place] = value
        save(folder / SECOND, values)

    return damage


def without(key: str):
    def damage(folder: Path) -> None:
        save(folder / SECOND, {name: values for name, values in arrays().items() if name != key})

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
    "relabelled nan": (
        intact,
        {"relabel": Failing(at=1, how="nan")},
        rf"{SECOND}\W* step 0: rewards holds n",
    ),
    "relabelled short": (
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
    assert re.search(message, said := refusal(folder, **changes)), said


def test_a_limit_of_none_at_all(folder):
    with pytest.raises(RingRLError, match="limit=0: read at least one episode"):
        build(folder, limit=0)


def test_no_folder(tmp_path):
    assert "there is no such folder; give the folder of" in refusal(tmp_path / "set")


def test_a_file_for_a_folder(tmp_path):
    (tmp_path / "set").write_text("")
    assert "is a file; give the folder that holds" in refusal(tmp_path / "set")


def test_no_episodes(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "README.md").write_text("")
    assert "holds no episode, which would be a file *_<index>_<length>.npz: give" in refusal(tmp_path / "set")
    (tmp_path / "set" / "buffer").mkdir()
    assert f"did you mean {tmp_path}/set/buffer?" in refusal(tmp_path / "set")


def test_an_unreadable_file(folder, monkeypatch):
    def denied(path, *rest):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(zipfile, "ZipFile", denied)
    assert "episode_000000_3.npz: cannot be read (Permission denied); make it readable" in refusal(folder)


def test_objects_are_not_unpickled(folder):
    planted = folder.parent / "planted"
    malicious = np.empty((4, 1), object)
    malicious[:] = Malicious(planted)
    for key in arrays():
        save(folder / SECOND, arrays() | {key: malicious})
        changes = {"relabel": Toy()} if key == "physics" else {}
        assert f"{SECOND}: {key!r} holds Python objects, which are never unpickled: save it" in refusal(
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
        refusal(folder)
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
            read = read_npz(path, list(arrays()), 1 << 16)
        except RingRLError as error:
            lines.append(str(error))
        else:
            for key, values in arrays().items():
                np.testing.assert_array_equal(read[key], values)
    assert 50 < len(lines) < 150
    assert all(str(path) in line and "\n" not in line for line in lines)


def full_disk(*arguments, **keywords):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_in_mid_import(folder, monkeypatch):
    monkeypatch.setattr(columns_module.ColumnWriter, "append", full_disk)
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
