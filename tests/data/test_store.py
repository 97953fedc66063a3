import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ringrl.data import EpisodeStore, EpisodeStoreWriter, column_writer, default_target_return
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec

ACTION = ActionSpec(ActionKind.continuous, 2, (-1.0, -1.0), (1.0, 1.0))


def append(writer, steps=4, reward=1.0, **changes):
    episode = {
        "observations": np.arange(3.0 * (steps + 1)).reshape(steps + 1, 3),
        "actions": np.full((steps, 2), 0.5),
        "rewards": np.full(steps, reward),
    }
    keywords = {key: changes.pop(key) for key in ("task_id", "policy", "terminated") if key in changes}
    writer.append(**(episode | changes), **keywords)


def build(path: Path, returns=(1.0, 5.0, 3.0), task_ids=(0, 0, 0), **changes) -> EpisodeStore:
    with EpisodeStoreWriter(path, 3, ACTION, source="a test") as writer:
        for value, task_id in zip(returns, task_ids, strict=True):
            append(writer, steps=2, reward=value / 2, task_id=task_id, **changes)
        return writer.finish()


def test_what_is_written_is_read(tmp_path):
    with EpisodeStoreWriter(tmp_path / "store", 3, ACTION, source="a test", metadata={"ref_min_score": 1.5}) as writer:
        append(writer, steps=4, task_id=7, policy="random", terminated=True)
        append(writer, steps=2, task_id=8, policy="expert", rewards=np.array([1.0, -3.0]))
        writer.finish()
    store = EpisodeStore.open(tmp_path / "store")
    np.testing.assert_array_equal(store.offsets, [0, 4, 6])
    np.testing.assert_array_equal(store.lengths, [4, 2])
    np.testing.assert_array_equal(store.returns, [4.0, -2.0])
    np.testing.assert_array_equal(store.task_ids, [7, 8])
    np.testing.assert_array_equal(store.terminated, [True, False])
    assert [store.metadata["policies"][i] for i in store.policy_ids] == ["random", "expert"]
    # The observation after the last action is dropped.
    np.testing.assert_array_equal(store.observations[:4], np.arange(12.0, dtype=np.float32).reshape(4, 3))
    np.testing.assert_array_equal(store.observations[4:], np.arange(6.0, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(store.returns_to_go, np.array([4, 3, 2, 1, -2, -3], np.float32))
    assert store.observations.dtype == store.actions.dtype == store.rewards.dtype == np.float32
    assert store.spec.max_episode_steps == 4
    assert store.spec.observation_size == 3
    assert store.spec.action == ACTION
    assert store.metadata["ref_min_score"] == 1.5
    assert store.num_episodes == 2
    assert store.num_steps == 6
    # Any numpy reads the columns.
    np.testing.assert_array_equal(np.load(tmp_path / "store" / "rewards.npy"), store.rewards)


def test_columns_are_mapped_and_read_only(tmp_path):
    store = build(tmp_path / "store")
    with pytest.raises(ValueError, match="read-only"):
        store.observations[0] = 0
    before = store.observations.copy()
    store.release()
    np.testing.assert_array_equal(store.observations, before)


def test_unbounded_actions_are_bounded_by_what_was_seen(tmp_path):
    action = ActionSpec(ActionKind.continuous, 2, (-np.inf, -1.0), (np.inf, 1.0))
    with EpisodeStoreWriter(tmp_path / "store", 3, action) as writer:
        append(writer, actions=np.array([[-3.0, 0], [9.0, 0], [0, 0], [0, 0]]))
        store = writer.finish()
    assert store.spec.action.low == (-3.0, -1.0)
    assert store.spec.action.high == (9.0, 1.0)


def test_rounding_beyond_the_bounds_is_clipped(tmp_path):
    with EpisodeStoreWriter(tmp_path / "store", 3, ACTION) as writer:
        append(writer, actions=np.full((4, 2), 1.0 + 1e-4))
        assert writer.finish().actions.max() == 1.0


def test_keep_top_keeps_the_best_of_each_task(tmp_path):
    store = build(tmp_path / "store", returns=[1, 5, 3, 5, -1, -2], task_ids=[0, 0, 0, 0, 4, 4])
    np.testing.assert_array_equal(store.keep_top(0.5).returns, [5, 5, -1])
    np.testing.assert_array_equal(store.keep_top(0.25).starts, [2, 8])  # a tie goes to the earlier; at least one each
    np.testing.assert_array_equal(store.keep_top(0.01).returns, [5, -1])
    assert store.keep_top(1.0) is store
    assert store.keep_top(0.5).fingerprint not in (store.fingerprint, store.keep_top(0.25).fingerprint)
    assert store.keep_top(0.5).fingerprint == store.keep_top(0.5).fingerprint
    with pytest.raises(RingRLError, match=r"top_fraction=0"):
        store.keep_top(0.0)


def test_select_and_offsets_of_a_view(tmp_path):
    store = build(tmp_path / "store")
    view = store.select(np.array([2, 0]))
    np.testing.assert_array_equal(view.returns, [3, 1])
    assert view.num_steps == 4
    np.testing.assert_array_equal(np.concatenate(list(view.iterate_steps(1))), [4, 5, 0, 1])
    np.testing.assert_array_equal(store.select(store.returns > 2).returns, [5, 3])
    with pytest.raises(ValueError, match="starts and lengths"):
        _ = view.offsets
    with pytest.raises(RingRLError, match="no episode"):
        store.select(np.array([], int))


@pytest.mark.parametrize("chunk_steps", [1, 3, 7, 1000])
def test_iterate_steps_covers_every_step_once(make_store, chunk_steps):
    store = make_store()
    indices = np.concatenate(list(store.iterate_steps(chunk_steps)))
    np.testing.assert_array_equal(indices, np.arange(store.num_steps))


def test_default_target_return_is_the_mean_of_the_tasks_best(tmp_path):
    store = build(tmp_path / "store", returns=[1, 5, 3, -2, -4], task_ids=[0, 0, 1, 2, 2])
    assert default_target_return(store) == pytest.approx((5 + 3 - 2) / 3)


def test_fingerprint_follows_the_content(tmp_path):
    first = build(tmp_path / "a")
    assert build(tmp_path / "b").fingerprint == first.fingerprint
    others = [
        build(tmp_path / "c", returns=(1.0, 5.0, 3.001)),
        build(tmp_path / "d", task_ids=(0, 0, 1)),
        build(tmp_path / "e", policy="other"),
        build(tmp_path / "f", terminated=True),
        build(tmp_path / "g", actions=np.zeros((2, 2))),
        build(tmp_path / "h", observations=np.zeros((3, 3))),
    ]
    assert len({store.fingerprint for store in [first, *others]}) == 7


def append_both(writer, changes):
    append(writer)
    append(writer, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": np.array([0, 1, np.nan, 1])}, r"a test, episode 1, step 2: rewards holds nan"),
        (
            {"observations": np.where(np.arange(15).reshape(5, 3) == 4, np.inf, 0)},
            r"episode 1, step 1: obs.* holds inf",
        ),
        ({"actions": np.full((4, 2), np.nan)}, r"episode 1, step 0: actions holds nan"),
        ({"actions": np.array([[0, 0], [0, -1.5], [0, 0], [0, 0]])}, r"episode 1, step 1: action -1.5 in dimension 1"),
        ({"actions": np.zeros((4, 3))}, r"episode 1: actions have shape \(4, 3\), expected \(4, 2\)"),
        ({"actions": np.zeros((5, 2))}, r"episode 1: 5 observations, 5 actions and 4 rewards"),
        ({"observations": np.zeros((5, 4))}, r"episode 1: observations have shape \(5, 4\), expected \(steps, 3\)"),
        ({"observations": np.zeros((7, 3))}, r"episode 1: 7 observations, 4 actions and 4 rewards"),
        ({"rewards": np.zeros(0)}, r"episode 1: rewards have shape \(0,\)"),
    ],
)
def test_faulty_episodes_are_named_and_nothing_is_left(tmp_path, changes, message):
    with (
        pytest.raises(RingRLError, match=message) as caught,
        EpisodeStoreWriter(tmp_path / "store", 3, ACTION, source="a test") as writer,
    ):
        append_both(writer, changes)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [-1, 3, 0.5])
def test_discrete_actions_out_of_range(tmp_path, wrong):
    action = ActionSpec(ActionKind.discrete, 3)
    with (
        pytest.raises(RingRLError, match=rf"episode 0, step 1: action {wrong} is not one of 0\.\.2"),
        EpisodeStoreWriter(tmp_path / "store", 3, action) as writer,
    ):
        append(writer, actions=np.array([0, wrong, 1, 2]))


def test_an_observation_after_the_end_may_be_anything(tmp_path):
    observations = np.zeros((5, 3))
    observations[4] = np.nan
    with EpisodeStoreWriter(tmp_path / "store", 3, ACTION) as writer:
        append(writer, observations=observations)
        assert writer.finish().num_steps == 4


def test_an_empty_set_is_refused(tmp_path):
    with (
        pytest.raises(RingRLError, match="a test: the set has no episodes"),
        EpisodeStoreWriter(tmp_path / "store", 3, ACTION, source="a test") as writer,
    ):
        writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_store_is_not_overwritten(tmp_path):
    build(tmp_path / "store")
    with pytest.raises(RingRLError, match="already exists"):
        build(tmp_path / "store")


def interrupt_after_one(writer):
    append(writer)
    raise KeyboardInterrupt


def test_an_interrupted_build_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), EpisodeStoreWriter(tmp_path / "store", 3, ACTION) as writer:
        interrupt_after_one(writer)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_another_process_finished_first_is_kept(tmp_path):
    with EpisodeStoreWriter(tmp_path / "store", 3, ACTION) as writer:
        append(writer, steps=2, reward=0.5)
        other = build(tmp_path / "store", (1.0,), (0,))
        assert writer.finish().fingerprint == other.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_another_store_that_appeared_meanwhile_is_not_taken_for_ones_own(tmp_path):
    with EpisodeStoreWriter(tmp_path / "store", 3, ACTION) as writer:
        append(writer)
        other = build(tmp_path / "store")
        with pytest.raises(RingRLError, match="another store appeared meanwhile"):
            writer.finish()
    assert EpisodeStore.open(tmp_path / "store").fingerprint == other.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_full_disk_gives_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(self, rows):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(column_writer.ColumnWriter, "append", full)
    with (
        pytest.raises(RingRLError, match=r"the disk is full.*RINGRL_DATA"),
        EpisodeStoreWriter(tmp_path / "store", 3, ACTION) as writer,
    ):
        append(writer)
    assert list(tmp_path.iterdir()) == []


def _missing_column(path):
    (path / "rewards.npy").unlink()


def _short_column(path):
    with (path / "observations.npy").open("r+b") as file:
        file.truncate(140)


def _not_a_column(path):
    (path / "actions.npy").write_bytes(b"x" * 200)


def _no_metadata(path):
    (path / "metadata.json").unlink()


def _broken_metadata(path):
    (path / "metadata.json").write_text('{"format": ')


def _edit(**changes):
    def edit(path):
        metadata = json.loads((path / "metadata.json").read_text())
        (path / "metadata.json").write_text(json.dumps(metadata | changes))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "there is no such folder"),
        (_missing_column, r"rewards.npy: this column is missing"),
        (_short_column, r"observations.npy: holds .* in 140 bytes where metadata.json says"),
        (_not_a_column, r"actions.npy: not a column of numbers"),
        (_no_metadata, "not an EpisodeStore, or half a one"),
        (_broken_metadata, "not valid JSON"),
        (_edit(format="else"), "not an EpisodeStore; a Minari set"),
        (_edit(version=99), "store version 99, this RingRL reads version 1"),
        (_edit(columns={}), "metadata.json: 'observations' is missing"),
        (_edit(spec=None), "metadata.json: .* is missing or wrong"),
    ],
)
def test_a_damaged_store_gives_one_line(tmp_path, damage, message):
    path = tmp_path / "store"
    build(path)
    damage(path)
    with pytest.raises(RingRLError, match=message) as caught:
        EpisodeStore.open(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
