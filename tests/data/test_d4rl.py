import dataclasses
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from d4rl_files import d4rl_columns, write_columns, write_d4rl_file

from ringrl.data import EpisodeStore
from ringrl.data import columns as columns_module
from ringrl.data.reference_scores import REFERENCE_SCORES, reference_of_minari, reference_of_task
from ringrl.data.sources import d4rl as source
from ringrl.data.sources import d4rl_columns as source_columns
from ringrl.data.sources.d4rl import build_from_d4rl, task_of_file
from ringrl.data.sources.d4rl_episodes import KITCHEN_TASKS, find_episodes, kitchen_rewards
from ringrl.data.sources.d4rl_tasks import find_task
from ringrl.errors import RingRLError

HOPPER = "hopper-medium-v2"


@dataclasses.dataclass
class Fabricated:
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray


def fabricate(task=HOPPER, lengths=(5, 1, 7, 3), ended=(True, False, True, False), seed=0):
    """Episodes of noise in the sizes of a task, its goal included."""
    described, rng = find_task(task), np.random.default_rng(seed)
    size = described.observation_size + (2 if described.goal is not None else 0)
    episodes = []
    for length, end in zip(lengths, ended, strict=True):
        observations = rng.normal(size=(length + 1, size)).astype(np.float32)
        if described.goal is not None:
            observations[:, -2:] = rng.normal(size=2)
        terminations = np.arange(length) == (length - 1 if end else -1)
        actions = rng.uniform(-1, 1, (length, described.action_size)).astype(np.float32)
        episodes.append(Fabricated(observations, actions, rng.normal(size=length).astype(np.float32), terminations))
    return episodes


def assert_holds(store: EpisodeStore, episodes, ended=None):
    """The store holds these episodes value by value, without their last observation."""
    np.testing.assert_array_equal(store.lengths, [len(episode.rewards) for episode in episodes])
    kept = [episode.observations[: len(episode.rewards)] for episode in episodes]
    np.testing.assert_array_equal(store.observations, np.concatenate(kept).astype(np.float32))
    np.testing.assert_array_equal(store.actions, np.concatenate([e.actions for e in episodes]).astype(np.float32))
    np.testing.assert_array_equal(store.rewards, np.concatenate([e.rewards for e in episodes]).astype(np.float32))
    if ended is None:
        ended = [bool(episode.terminations[-1]) for episode in episodes]
    np.testing.assert_array_equal(store.terminated, ended)


def build(folder: Path, columns, task=HOPPER, compression="gzip") -> EpisodeStore:
    return build_from_d4rl(write_columns(folder / "file.hdf5", columns, compression), task, folder / "store")


@pytest.mark.parametrize("compression", ["gzip", None])
def test_locomotion_comes_back_value_by_value(tmp_path, compression):
    episodes, seen = fabricate(), []
    file = write_d4rl_file(tmp_path / "hopper_medium-v2.hdf5", episodes, compression=compression)
    store = build_from_d4rl(file, task_of_file(file), tmp_path / "store", lambda *done: seen.append(done))
    assert_holds(store, episodes)
    np.testing.assert_allclose(store.returns, [episode.rewards.sum() for episode in episodes], rtol=1e-5)
    assert seen == [(16, 16)]
    assert store.metadata["dataset_id"] == HOPPER
    assert store.metadata["environment"] == "Hopper-v4"
    assert store.metadata["environment_spec"] == {"kwargs": {}, "max_episode_steps": 1000}
    assert (store.metadata["ref_min_score"], store.metadata["ref_max_score"]) == (-20.272305, 3234.3)


def test_blocks_and_chunks_do_not_show(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 20, 12)
    episodes = fabricate(lengths=lengths, ended=rng.integers(0, 2, 12).astype(bool))
    whole = build(tmp_path, d4rl_columns(episodes))
    fingerprints = set()
    for index, rows in enumerate((1, 7, 64)):
        monkeypatch.setattr(source_columns, "BLOCK_ROWS", rows)
        folder = tmp_path / str(index)
        folder.mkdir()
        fingerprints.add(build(folder, d4rl_columns(episodes), compression=None).fingerprint)
    assert fingerprints == {whole.fingerprint}


def test_mazes_carry_their_goal_and_never_terminate_in_maze2d(tmp_path):
    episodes = fabricate("maze2d-large-v1")
    store = build(tmp_path, d4rl_columns(episodes, "maze2d"), "maze2d-large-v1")
    assert_holds(store, episodes, ended=[False] * 4)
    assert store.metadata["environment"] == "ringrl/D4RLMaze2dLarge-v0"


def test_maze2d_begins_an_episode_at_a_new_goal_that_no_marker_tells(tmp_path):
    episodes = fabricate("maze2d-umaze-v1")
    columns = d4rl_columns(episodes, "maze2d")
    columns["terminals"][:] = False
    del columns["timeouts"]
    assert_holds(build(tmp_path, columns, "maze2d-umaze-v1"), episodes, ended=[False] * 4)


def test_a_maze_file_without_goals_gets_the_task_s(tmp_path):
    episodes = fabricate("maze2d-medium-v1")
    columns = d4rl_columns(episodes, "maze2d")
    del columns["infos/goal"]
    for episode in episodes:
        episode.observations[:, -2:] = find_task("maze2d-medium-v1").goal
    assert_holds(build(tmp_path, columns, "maze2d-medium-v1"), episodes, ended=[False] * 4)


def test_antmaze_ends_at_the_first_arrival_and_leaves_the_rest_out(tmp_path):
    task = "antmaze-large-diverse-v2"
    episodes = fabricate(task, lengths=(6, 4, 5, 3), ended=(False,) * 4)
    arrivals = ([0, 0, 1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1])
    columns = d4rl_columns(episodes, "antmaze")
    columns["rewards"] = np.concatenate(arrivals).astype(np.float32)
    columns["terminals"] = columns["rewards"].copy()
    store = build(tmp_path, columns, task)
    np.testing.assert_array_equal(store.lengths, [3, 4, 1, 3])
    np.testing.assert_array_equal(store.returns, [1, 0, 1, 1])
    np.testing.assert_array_equal(store.terminated, [True, False, True, True])
    kept = [episode.observations[:n] for episode, n in zip(episodes, store.lengths, strict=True)]
    np.testing.assert_array_equal(store.observations, np.concatenate(kept))
    assert store.metadata["rows_left_out"] == 7
    assert store.metadata["environment_spec"]["max_episode_steps"] == 1000


def test_antmaze_begins_an_episode_at_a_new_goal_without_a_reset(tmp_path):
    task = "antmaze-umaze-v2"
    episodes = fabricate(task, lengths=(4, 3), ended=(False, False))
    columns = d4rl_columns(episodes, "antmaze")
    columns["timeouts"][:] = False
    columns["timeouts"][-1] = True
    assert_holds(build(tmp_path, columns, task), episodes)


def kitchen_episode(done, length=8):
    """Observations in which task number i of `done` is done from step `done[i]` on, all four being asked for."""
    asked = (5, 6, 2, 3)
    observations = np.zeros((length, 60), np.float32)
    for index in asked:
        observations[:, 30 + np.array(KITCHEN_TASKS[index])] = 1.5
    for index, step in done.items():
        observations[step:, list(KITCHEN_TASKS[asked[index]])] = 1.45
    return observations


def test_kitchen_s_counts_become_the_environment_s_rewards(tmp_path):
    task = "kitchen-mixed-v0"
    schedules = ({0: 2, 1: 2, 2: 5}, {}, {0: 0, 1: 3, 2: 4, 3: 7})
    episodes = []
    for done in schedules:
        observations = kitchen_episode(done)
        counts = np.array([sum(step <= t for step in done.values()) for t in range(8)], np.float32)
        episodes.append(Fabricated(observations, np.zeros((8, 9)), counts, np.zeros(8, bool)))
    store = build(tmp_path, d4rl_columns(episodes, "kitchen"), task)
    np.testing.assert_array_equal(store.lengths, [8, 8, 8])
    np.testing.assert_array_equal(store.returns, [3, 0, 4])
    np.testing.assert_array_equal(store.terminated, [False, False, True])
    np.testing.assert_array_equal(store.rewards[:8], [0, 0, 2, 0, 0, 1, 0, 0])


def test_kitchen_rewards_that_are_the_environment_s_stay():
    observations = np.concatenate([kitchen_episode({0: 2}), kitchen_episode({0: 2, 1: 6})])
    own = np.zeros(16, np.float32)
    own[[1, 9, 13]] = 1  # the action before the observation that shows it
    np.testing.assert_array_equal(kitchen_rewards(observations, own, np.array([0, 8])), own)


def test_old_files_without_timeouts_are_cut_at_the_time_limit(tmp_path):
    episodes = fabricate(lengths=(1000, 12, 1000, 700), ended=(False, True, False, False))
    columns = d4rl_columns(episodes)
    del columns["timeouts"]
    assert_holds(build(tmp_path, columns), episodes)


def test_markers_that_are_never_set_are_no_markers(tmp_path):
    task = "pen-human-v1"
    episodes = fabricate(task, lengths=(100, 100, 30), ended=(False,) * 3)
    columns = d4rl_columns(episodes, "adroit")
    columns["timeouts"][:] = False
    assert_holds(build(tmp_path, columns, task), episodes)


def test_demonstrations_beyond_the_time_limit_stay_whole(tmp_path):
    episodes = fabricate("hammer-human-v1", lengths=(423, 200), ended=(False, False))
    assert_holds(build(tmp_path, d4rl_columns(episodes, "adroit"), "hammer-human-v1"), episodes)


def test_the_last_episode_needs_no_end(tmp_path):
    episodes = fabricate()
    columns = d4rl_columns(episodes)
    columns["timeouts"][-1] = False
    assert_holds(build(tmp_path, columns), episodes)


def test_columns_of_other_widths_and_types_are_read(tmp_path):
    episodes = fabricate()
    columns = d4rl_columns(episodes)
    columns |= {name: columns[name].astype(np.float64) for name in ("observations", "actions")}
    columns |= {name: columns[name][:, None].astype(np.float64) for name in ("rewards", "terminals")}
    columns["timeouts"] = columns["timeouts"].astype(np.uint8)
    assert_holds(build(tmp_path, columns), episodes)


@pytest.mark.parametrize("final", [False, True])
def test_find_episodes_against_a_plain_loop(final):
    rng = np.random.default_rng(3)
    for _ in range(200):
        rows, limit = int(rng.integers(1, 25)), int(rng.integers(1, 8)) if rng.integers(2) else None
        ends, arrivals = rng.random(rows) < 0.2, rng.random(rows) < 0.2
        first_arrival = bool(rng.integers(2))
        found = find_episodes(ends, arrivals=arrivals if first_arrival else None, limit=limit, final=final)
        starts, lengths, begin, used = [], [], 0, 0
        for row in range(rows):
            if ends[row] or row - begin + 1 == limit or (final and row == rows - 1):
                hits = np.flatnonzero(arrivals[begin : row + 1]) if first_arrival else []
                starts.append(begin)
                lengths.append(int(hits[0]) + 1 if len(hits) else row + 1 - begin)
                begin = used = row + 1
        assert (found.starts.tolist(), found.lengths.tolist(), found.used) == (starts, lengths, used)


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

    monkeypatch.setattr(columns_module.ColumnWriter, "append", full)
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


PUBLISHED = {
    "hopper_medium_replay-v2.hdf5": "hopper-medium-replay-v2",
    "hopper_medium_v2.hdf5": "hopper-medium-v2",
    "halfcheetah-full-replay-v1.h5": "halfcheetah-full-replay-v1",
    "walker_mixed.hdf5": "walker2d-medium-replay-v0",
    "ant_random_expert.hdf5": "ant-random-expert-v0",
    "maze2d-open-sparse.hdf5": "maze2d-open-v0",
    "maze2d-eval-large-dense-v1.hdf5": "maze2d-eval-large-dense-v1",
    "Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse.hdf5": "antmaze-umaze-v0",
    "Ant_maze_medium_noisy_multistart_True_multigoal_False_sparse.hdf5": "antmaze-medium-play-v1",
    "Ant_maze_hardest-maze_noisy_multistart_True_multigoal_True_sparse_fixed.hdf5": "antmaze-large-diverse-v2",
    "mini_kitchen_microwave_kettle_light_slider-v0.hdf5": "kitchen-complete-v0",
    "kitchen_microwave_kettle_bottomburner_light-v0.hdf5": "kitchen-mixed-v0",
    "pen-v0_demos_clipped.hdf5": "pen-human-v0",
    "relocate-demos-v0-bc-combined.hdf5": "relocate-cloned-v0",
    "door-expert-v1.hdf5": "door-expert-v1",
}


def test_published_file_names_tell_their_task():
    assert {name: task_of_file(Path("/data") / name) for name in PUBLISHED} == PUBLISHED


def test_another_file_name_asks_for_the_task():
    with pytest.raises(RingRLError, match=r"my-hopper.hdf5: .*task=NAME"):
        task_of_file("my-hopper.hdf5")
    with pytest.raises(RingRLError, match="hopper-medium-v3 is not a task of D4RL: nearest are hopper-medium-v"):
        find_task("hopper-medium-v3")


def test_every_task_has_scores_and_an_environment():
    assert len(REFERENCE_SCORES) == 148
    for name, (low, high) in REFERENCE_SCORES.items():
        task = find_task(name)
        assert low < high
        assert task.observation_size > 0 < task.action_size
    assert reference_of_task("maze2d-umaze-v1") == (23.85, 161.86)
    assert reference_of_task("hopper-medium-v3") is None


def test_minari_sets_have_d4rl_s_scores_only_where_they_mean_the_same():
    assert reference_of_minari("D4RL/antmaze/large-diverse-v1") == (0.0, 1.0)
    assert reference_of_minari("D4RL/kitchen/mixed-v2") == (0.0, 4.0)
    assert reference_of_minari("D4RL/pen/human-v2") == reference_of_task("pen-human-v1")
    assert reference_of_minari("D4RL/pointmaze/large-v2") is None
    assert reference_of_minari("mujoco/hopper/medium-v0") is None
