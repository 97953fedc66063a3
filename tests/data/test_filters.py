"""Which episodes `open_dataset` keeps, and where it finds a store."""

import numpy as np
import pytest

from ringrl.config.schema import build
from ringrl.data import EpisodeStoreWriter, open_dataset
from ringrl.data.config import DataConfig, Source
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec

ACTION = ActionSpec(ActionKind.discrete, 2)
LENGTHS, RETURNS, TASKS = [2, 5, 3, 4, 6, 1], [1, 9, -3, 4, 4, 7], [0, 0, 0, 1, 1, 2]


@pytest.fixture
def cache(tmp_path):
    """A data cache with two stores, `first` of three tasks and `second` of one."""
    for name, scale in (("first", 1.0), ("second", 10.0)):
        with EpisodeStoreWriter(tmp_path / "stores" / name, 1, ACTION) as writer:
            for length, value, task in zip(LENGTHS, RETURNS, TASKS, strict=True):
                rewards = np.append(np.zeros(length - 1), scale * value)
                task_id = task if name == "first" else 5
                writer.append(np.zeros((length, 1)), np.zeros(length, int), rewards, task_id=task_id)
            writer.finish()
    return tmp_path


def opened(cache, name="first", **changes):
    return open_dataset(DataConfig(Source.store, name, **changes), cache)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, RETURNS),
        ({"tasks": [1]}, [4, 4]),
        ({"tasks": [2, 0]}, [1, 9, -3, 7]),
        ({"min_length": 4}, [9, 4, 4]),
        ({"max_length": 2}, [1, 7]),
        ({"min_length": 2, "max_length": 3}, [1, -3]),
        ({"min_return": 4.0}, [9, 4, 4, 7]),
        ({"max_return": 1.0}, [1, -3]),
        ({"min_return": 0.0, "max_return": 4.0}, [1, 4, 4]),
        ({"max_return": 8.0, "top_fraction": 0.5}, [1, 4, 7]),  # the best half of each task, of those below 8
        ({"tasks": [0], "min_length": 3, "min_return": 0.0}, [9]),
    ],
)
def test_filters(cache, changes, kept):
    store = opened(cache, **changes)
    np.testing.assert_array_equal(store.returns, kept)
    assert (store.fingerprint == opened(cache).fingerprint) == (kept == RETURNS)
    assert store.fingerprint == opened(cache, **changes).fingerprint


def test_further_sets_are_joined_before_the_filters(cache):
    store = opened(cache, also=["second"])
    np.testing.assert_array_equal(store.returns, [*RETURNS, *(10 * value for value in RETURNS)])
    np.testing.assert_array_equal(store.task_ids, [*TASKS, *[3] * 6])
    assert store.metadata["task_names"] == ["first/0", "first/1", "first/2", "second"]
    np.testing.assert_array_equal(
        opened(cache, also=["second"], tasks=[0, 3], min_return=9.0).returns, [9, 10, 90, 40, 40, 70]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": [1, 7]}, r"data.tasks=\[1, 7\]: .*first has no task 7; it has 0, 1, 2\."),
        ({"min_length": 9}, r"data.min_length=9 leaves no episode of .*first: the lengths there are from 1 to 6\."),
        ({"tasks": [2], "min_length": 2}, r"data.min_length=2 leaves no .*: the lengths there are from 1 to 1\."),
        ({"min_return": 9.5}, r"data.min_return=9.5 leaves no episode .*: the returns there are from -3 to 9\."),
        ({"max_return": -4.0}, r"data.max_return=-4 leaves no episode .*: the returns there are from -3 to 9\."),
        ({"min_return": 5.0, "max_return": 6.0}, r"data.max_return=6 leaves .*: the returns there are from 7 to 9\."),
    ],
)
def test_a_filter_that_leaves_nothing_is_named(cache, changes, message):
    with pytest.raises(RingRLError, match=message) as caught:
        opened(cache, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_length": -1}, "data.min_length=-1: use 0"),
        ({"max_length": 0}, "data.max_length=0 is less than 1"),
        ({"min_length": 5, "max_length": 4}, "data.max_length=4 is less than 5"),
        ({"min_return": 2.0, "max_return": 1.0}, "data.min_return=2.0 is above data.max_return=1.0"),
        ({"max_return": float("nan")}, "data.max_return=nan"),
        ({"tasks": [0, 0]}, r"data.tasks=\[0, 0\]: give each"),
        ({"tasks": [-1]}, r"data.tasks=\[-1\]"),
        ({"also": ["b", ""]}, r"an empty name is no set"),
        ({"also": ["b", "b"]}, r"data.also=\['b', 'b'\]: b is there twice"),
        ({"also": ["a"]}, r"a is there twice"),
    ],
)
def test_settings_that_cannot_be_meant(changes, message):
    with pytest.raises(RingRLError, match=message) as caught:
        DataConfig(Source.store, "a", **changes)
    assert "\n" not in str(caught.value)


def test_plain_containers_become_the_config():
    values = {"name": "a", "also": ["b"], "tasks": [1], "min_return": 3, "max_length": None}
    config = build(DataConfig, values)
    assert (config.also, config.tasks, config.min_return, config.max_length) == (["b"], [1], 3.0, None)
    assert build(DataConfig, {}) == DataConfig()


def test_a_store_is_found_by_name_or_folder(cache, tmp_path, monkeypatch):
    expected = opened(cache).fingerprint
    assert opened(tmp_path / "elsewhere", str(cache / "stores" / "first")).fingerprint == expected
    monkeypatch.chdir(cache / "stores")
    assert opened(tmp_path / "elsewhere", "first").fingerprint == expected
    assert opened(tmp_path / "elsewhere", "./first").fingerprint == expected
    monkeypatch.setenv("RINGRL_DATA", str(cache))
    monkeypatch.chdir(tmp_path.parent)
    assert open_dataset(DataConfig(Source.store, "first")).fingerprint == expected


def test_an_unknown_store_has_the_nearest_listed(cache):
    with pytest.raises(RingRLError, match=r"data.name=frist: no such store in .*; the nearest there are first, second"):
        opened(cache, "frist")
    with pytest.raises(RingRLError, match="there are none: `ringrl import` makes them"):
        opened(cache / "elsewhere", "frist")
    with pytest.raises(RingRLError, match=r"nowhere/first: there is no such folder"):
        opened(cache, "nowhere/first")
    with pytest.raises(RingRLError, match=r"data.name=secnd: no such store"):
        opened(cache, "first", also=["secnd"])
