"""Many episodes at once against one by one."""

import time

import numpy as np
import pytest
from many_episodes import BOUNDED, DISCRETE, UNBOUNDED, append_in_chunks, append_one_by_one, make_episodes

from ringrl.data import EpisodeStoreWriter, column_writer
from ringrl.data import store_writer as writer_module
from ringrl.errors import RingRLError


@pytest.mark.parametrize("action", [UNBOUNDED, BOUNDED, DISCRETE], ids=["unbounded", "bounded", "discrete"])
@pytest.mark.parametrize("threads", [False, True])
def test_the_same_bytes_as_one_by_one(tmp_path, monkeypatch, action, threads):
    monkeypatch.setattr(writer_module, "PIECE_BYTES", 3000)  # several pieces in every call
    monkeypatch.setattr(writer_module, "THREAD_BYTES", 0 if threads else 1 << 30)
    given = make_episodes(action, count=61, longest=19)
    with EpisodeStoreWriter(tmp_path / "single", 3, action, source="a test") as writer:
        append_one_by_one(writer, given)
        single = writer.finish()
    assert single.num_steps == given["lengths"].sum()
    for chunk in (1, 2, 17, 61):
        path = tmp_path / f"chunks-{chunk}"
        with EpisodeStoreWriter(path, 3, action, source="a test") as writer:
            append_in_chunks(writer, given, chunk)
            store = writer.finish()
        assert store.fingerprint == single.fingerprint
        for file in (tmp_path / "single").iterdir():
            assert (path / file.name).read_bytes() == file.read_bytes(), file.name
        assert {file.name for file in path.iterdir()} == {file.name for file in (tmp_path / "single").iterdir()}


def test_a_column_is_written_by_one_thread_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "PIECE_BYTES", 3000)
    monkeypatch.setattr(writer_module, "THREAD_BYTES", 0)
    real, busy, pieces = column_writer.ColumnWriter.append, set(), []

    def append(self, rows):
        assert self not in busy
        busy.add(self)
        time.sleep(0.005 if self.path.stem == "observations" else 0)  # others run ahead
        real(self, rows)
        busy.remove(self)
        pieces.append(self)

    monkeypatch.setattr(column_writer.ColumnWriter, "append", append)
    given = make_episodes(DISCRETE, count=61, longest=19)
    with EpisodeStoreWriter(tmp_path / "store", 3, DISCRETE) as writer:
        append_in_chunks(writer, given, 61)
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
    given = damaged(make_episodes(action, count=12, longest=9), field, 6, 4, value)  # the 7th has 9 steps
    given = damaged(given, "rewards", 8, 0, np.nan) if field != "rewards" else given  # a later fault is not named
    names = [f"file.hdf5, rows from {episode}" for episode in range(12)]
    lines = set()
    for chunk in (None, 1, 5, 12):
        path = tmp_path / "store"
        with pytest.raises(RingRLError) as caught, EpisodeStoreWriter(path, 3, action, source="a test") as writer:
            append_one_by_one(writer, given, names) if chunk is None else append_in_chunks(writer, given, chunk, names)
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
