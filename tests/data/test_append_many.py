"""Many episodes at once against one by one; killed writers, full disks, and stores that are replaced."""

import errno
import os
import resource
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from ringrl.data import EpisodeStore, EpisodeStoreWriter
from ringrl.data import columns as columns_module
from ringrl.data import store_writer as writer_module
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec

UNBOUNDED = ActionSpec(ActionKind.continuous, 2, (-1.0, -np.inf), (1.0, np.inf))
BOUNDED = ActionSpec(ActionKind.continuous, 2, (0.0, -1.0), (1.0, 1.0))
DISCRETE = ActionSpec(ActionKind.discrete, 4)


def episodes_of(action: ActionSpec, count: int, longest: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, count)
    lengths[::3] = longest  # several of one length
    steps = int(lengths.sum())
    actions = rng.integers(0, 4, steps) if action is DISCRETE else rng.uniform(0, 1, (steps, 2))
    if action is BOUNDED:
        actions[::7, 0], actions[3, 0] = 1.0 + 5e-4, -0.0  # clipped, and a zero that keeps its sign
    return {
        "observations": rng.normal(size=(steps, 3)),
        "actions": actions,
        "rewards": rng.normal(size=steps) * 10.0 ** rng.integers(-3, 4, steps),
        "lengths": lengths,
        "terminated": rng.integers(0, 2, count).astype(bool),
        "task_ids": rng.integers(0, 5, count),
        "policies": [f"policy-{k}" for k in rng.integers(0, 3, count)],
    }


def one_by_one(writer: EpisodeStoreWriter, given: dict, names: list[str] | None = None) -> None:
    ends = np.cumsum(given["lengths"])
    for episode, end in enumerate(ends):
        steps = slice(end - given["lengths"][episode], end)
        writer.append(
            given["observations"][steps],
            given["actions"][steps],
            given["rewards"][steps],
            terminated=given["terminated"][episode],
            task_id=int(given["task_ids"][episode]),
            policy=given["policies"][episode],
            name=names[episode] if names else "",
        )


def in_chunks(writer: EpisodeStoreWriter, given: dict, chunk: int, names: list[str] | None = None) -> None:
    ends = np.cumsum(given["lengths"])
    for first in range(0, len(ends), chunk):
        part = slice(first, first + chunk)
        steps = slice(ends[first] - given["lengths"][first], ends[part][-1])
        writer.append_many(
            *(given[key][steps] for key in ("observations", "actions", "rewards")),
            given["lengths"][part],
            **{key: given[key][part] for key in ("terminated", "task_ids", "policies")},
            episode_names=None if names is None else names[part],
        )


@pytest.mark.parametrize("action", [UNBOUNDED, BOUNDED, DISCRETE], ids=["unbounded", "bounded", "discrete"])
@pytest.mark.parametrize("threads", [False, True])
def test_the_same_bytes_as_one_by_one(tmp_path, monkeypatch, action, threads):
    monkeypatch.setattr(writer_module, "PIECE_BYTES", 3000)  # several pieces in every call
    monkeypatch.setattr(writer_module, "THREAD_BYTES", 0 if threads else 1 << 30)
    given = episodes_of(action, count=61, longest=19)
    with EpisodeStoreWriter(tmp_path / "single", 3, action, source="a test") as writer:
        one_by_one(writer, given)
        single = writer.finish()
    assert single.num_steps == given["lengths"].sum()
    for chunk in (1, 2, 17, 61):
        path = tmp_path / f"chunks-{chunk}"
        with EpisodeStoreWriter(path, 3, action, source="a test") as writer:
            in_chunks(writer, given, chunk)
            store = writer.finish()
        assert store.fingerprint == single.fingerprint
        for file in (tmp_path / "single").iterdir():
            assert (path / file.name).read_bytes() == file.read_bytes(), file.name
        assert {file.name for file in path.iterdir()} == {file.name for file in (tmp_path / "single").iterdir()}


def test_a_column_is_written_by_one_thread_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "PIECE_BYTES", 3000)
    monkeypatch.setattr(writer_module, "THREAD_BYTES", 0)
    real, busy, pieces = columns_module.ColumnWriter.append, set(), []

    def append(self, rows):
        assert self not in busy
        busy.add(self)
        time.sleep(0.005 if self.path.stem == "observations" else 0)  # others run ahead
        real(self, rows)
        busy.remove(self)
        pieces.append(self)

    monkeypatch.setattr(columns_module.ColumnWriter, "append", append)
    given = episodes_of(DISCRETE, count=61, longest=19)
    with EpisodeStoreWriter(tmp_path / "store", 3, DISCRETE) as writer:
        in_chunks(writer, given, 61)
        assert not busy  # the caller's arrays are its own again
        store = writer.finish()
    np.testing.assert_array_equal(store.observations, given["observations"].astype(np.float32))
    assert len(pieces) > 4 * 4


def test_one_task_and_one_policy_for_all(tmp_path):
    with EpisodeStoreWriter(tmp_path / "store", 1, DISCRETE) as writer:
        writer.append_many(
            np.zeros((5, 1)), np.zeros(5, int), np.ones(5), [2, 3], terminated=[True, False], task_ids=4, policies="p"
        )
        store = writer.finish()
    np.testing.assert_array_equal(store.returns, [2, 3])
    np.testing.assert_array_equal(store.returns_to_go, [2, 1, 3, 2, 1])
    np.testing.assert_array_equal(store.task_ids, [4, 4])
    np.testing.assert_array_equal(store.terminated, [True, False])
    assert store.metadata["policies"] == ["p"]


def damaged(given: dict, field: str, episode: int, step: int, value: object) -> dict:
    values = given[field].astype(np.float64)
    row = int(given["lengths"][:episode].sum()) + step
    values[row] = value
    return given | {field: values}


@pytest.mark.parametrize(
    ("action", "field", "value", "message"),
    [
        (BOUNDED, "observations", np.nan, "observations holds nan"),
        (BOUNDED, "observations", 1e39, "observations holds inf"),
        (BOUNDED, "rewards", -np.inf, "rewards holds -inf"),
        (BOUNDED, "actions", np.nan, "actions holds nan"),
        (BOUNDED, "actions", 1.1, "action 1.1 in dimension 0 is outside its bounds [0, 1]"),
        (UNBOUNDED, "actions", np.inf, "actions holds inf"),
        (DISCRETE, "actions", 4, "action 4.0 is not one of 0..3"),
        (DISCRETE, "actions", 1.5, "action 1.5 is not one of 0..3"),
        (DISCRETE, "actions", -1, "action -1.0 is not one of 0..3"),
    ],
)
def test_the_same_line_as_one_by_one(tmp_path, action, field, value, message):
    given = damaged(episodes_of(action, count=12, longest=9), field, 6, 4, value)  # the 7th has 9 steps
    given = damaged(given, "rewards", 8, 0, np.nan) if field != "rewards" else given  # a later fault is not named
    names = [f"file.hdf5, rows from {episode}" for episode in range(12)]
    lines = set()
    for chunk in (None, 1, 5, 12):
        path = tmp_path / "store"
        with pytest.raises(RingRLError) as caught, EpisodeStoreWriter(path, 3, action, source="a test") as writer:
            one_by_one(writer, given, names) if chunk is None else in_chunks(writer, given, chunk, names)
        lines.add(str(caught.value))
    assert len(lines) == 1
    assert lines.pop().startswith(f"a test, episode 6 (file.hdf5, rows from 6), step 4: {message}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": [2, 0, 3]}, r"episode 1 \(b\): rewards have shape \(0,\)"),
        ({"lengths": [2, -1, 4]}, r"episode 1 \(b\): rewards have shape \(0,\)"),
        ({"lengths": [2, 2, 2]}, r"episode 2 \(c\): 1 of its 2 steps are there"),
        ({"lengths": [1, 2, 1]}, r"episode 2 \(c\): the episodes up to this one have 4 of the 5 steps given"),
        ({"observations": np.zeros((5, 4))}, r"episode 0 \(a\): observations have shape \(2, 4\), expected"),
        ({"observations": np.zeros((4, 3))}, r"episode 2 \(c\): 1 observations, 2 actions and 2 rewards"),
        ({"actions": np.zeros((5, 3))}, r"episode 0 \(a\): actions have shape \(2, 3\), expected \(2, 2\)"),
        ({"actions": np.zeros(5)}, r"episode 0 \(a\): actions have shape \(2,\), expected \(2, 2\)"),
        ({"rewards": np.zeros((5, 1))}, r"episode 0 \(a\): rewards have shape \(2, 1\)"),
        ({"rewards": np.array(["x"] * 5)}, r"episode 0 \(a\): rewards are <U1 of shape \(5,\), not rows of numbers"),
        ({"observations": np.empty((5, 3), object)}, r"episode 0 \(a\): observations are object"),
        ({"rewards": np.full(5, 3e38)}, r"episode 0 \(a\): rewards add up beyond the range of float32"),
        ({"task_ids": [0, 0, -1]}, r"episode 2 \(c\): task_id=-1 is not in 0"),
    ],
)
def test_wrong_shapes_and_lengths_are_named(tmp_path, changes, message):
    given = {
        "observations": np.zeros((5, 3)),
        "actions": np.zeros((5, 2)),
        "rewards": np.zeros(5),
        "lengths": [2, 1, 2],
        "terminated": [False] * 3,
        "episode_names": ["a", "b", "c"],
    }
    with (
        pytest.raises(RingRLError, match=message) as caught,
        EpisodeStoreWriter(tmp_path / "store", 3, BOUNDED, source="a test") as writer,
    ):
        writer.append_many(**(given | changes))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


SET = episodes_of(DISCRETE, count=400, longest=300)

KILLED_IN_MID_WRITE = """
    import os, signal, sys, time
    from ringrl.data import EpisodeStoreWriter
    from test_append_many import DISCRETE, SET, in_chunks

    def start_writing(path):
        process = os.fork()
        if not process:
            with EpisodeStoreWriter(path, 3, DISCRETE, source="a test") as writer:
                in_chunks(writer, SET, 7)
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
        in_chunks(writer, SET, 11)
        print(writer.finish().fingerprint)
    print(*sorted(name[:7] for name in os.listdir(os.path.dirname(path))))
    os.kill(living, signal.SIGKILL)
    os.waitpid(living, 0)
"""


def test_a_killed_writer_is_cleaned_up_after_and_a_living_one_let_be(tmp_path):
    with EpisodeStoreWriter(tmp_path / "undisturbed", 3, DISCRETE, source="a test") as writer:
        in_chunks(writer, SET, 13)
        fingerprint = writer.finish().fingerprint
    (tmp_path / "cache").mkdir()
    path = tmp_path / "cache" / "store"
    command = [sys.executable, "-c", textwrap.dedent(KILLED_IN_MID_WRITE), str(path)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # Two were at it; of the dead one nothing is left when the third has finished, the living one's folder is there.
    assert done.stdout.split("\n")[:3] == ["2", fingerprint, ".store- store"]
    with pytest.raises(RingRLError, match="already exists"):
        write(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["store"]
    assert EpisodeStore.open(path).fingerprint == fingerprint


def write(path: Path, reward: float = 1.0, finish: bool = True, **changes) -> EpisodeStore | None:
    with EpisodeStoreWriter(path, 1, DISCRETE, **changes) as writer:
        writer.append(np.zeros((3, 1)), np.zeros(3, int), np.full(3, reward))
        return writer.finish() if finish else None


def test_an_empty_leftover_goes_and_what_is_not_ours_stays(tmp_path):
    (tmp_path / ".store-abcdefgh").mkdir()
    for name in (".store-notalock", ".store-x", ".stored-abcdefgh"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    write(tmp_path / "store")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        ".store-notalock",
        ".store-x",
        ".stored-abcdefgh",
        "store",
    ]


def test_overwriting_replaces_the_store_when_it_is_finished(tmp_path):
    old = write(tmp_path / "store", 1.0)
    assert old is not None
    write(tmp_path / "store", 2.0, finish=False, overwrite=True)
    assert EpisodeStore.open(tmp_path / "store").fingerprint == old.fingerprint
    new = write(tmp_path / "store", 2.0, overwrite=True)
    assert new is not None
    np.testing.assert_array_equal(new.returns, [6])
    np.testing.assert_array_equal(old.rewards, np.ones(3))  # who reads the old one goes on
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]
    assert write(tmp_path / "new", overwrite=True) is not None


def test_the_old_store_stays_when_the_new_one_cannot_be_moved_in(tmp_path, monkeypatch):
    old = write(tmp_path / "store", 1.0)
    rename = os.rename

    def fail(source, target):
        if Path(target) == tmp_path / "store" and not str(source).endswith(".old"):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(RingRLError, match="cannot be written \\(Input/output error\\)"):
        write(tmp_path / "store", 2.0, overwrite=True)
    assert EpisodeStore.open(tmp_path / "store").fingerprint == old.fingerprint
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_a_writer_killed_while_it_replaced_a_store_loses_neither(tmp_path):
    old = write(tmp_path / "store", 1.0)
    leftover = tmp_path / ".store-abcdefgh"
    leftover.mkdir()
    (leftover / "writer.lock").touch()
    (tmp_path / "store").rename(tmp_path / ".store-abcdefgh.old")
    with pytest.raises(RingRLError, match="already exists"):
        write(tmp_path / "store")
    assert EpisodeStore.open(tmp_path / "store").fingerprint == old.fingerprint
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_what_is_no_store_is_not_overwritten(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    with pytest.raises(RingRLError, match=r"folder: not a store alone \(thesis.tex is there\), so it is not overwri"):
        write(tmp_path / "folder", overwrite=True)
    with pytest.raises(RingRLError, match=r"file: not a store alone \(no folder is there\)"):
        write(tmp_path / "file", overwrite=True)
    assert (tmp_path / "folder" / "thesis.tex").exists()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("threads", [False, True])
def test_a_full_disk_in_mid_write_leaves_the_cache_as_it_was(tmp_path, monkeypatch, threads):
    monkeypatch.setattr(writer_module, "THREAD_BYTES", 0 if threads else 1 << 30)
    old = write(tmp_path / "store")
    real, calls = columns_module.ColumnWriter.append, []

    def fill(self, rows):
        calls.append(rows)
        if len(calls) > 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, rows)

    monkeypatch.setattr(columns_module.ColumnWriter, "append", fill)
    given = episodes_of(DISCRETE, 30, 9)
    with (
        pytest.raises(RingRLError, match=r"store: the disk is full. Free some space, or point RINGRL_DATA") as caught,
        EpisodeStoreWriter(tmp_path / "store", 3, DISCRETE, overwrite=True) as writer,
    ):
        in_chunks(writer, given, 3)
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
