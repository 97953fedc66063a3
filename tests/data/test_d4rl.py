"""D4RL's files come in value by value, and their episodes end where the task's rules say."""

from pathlib import Path

import numpy as np
import pytest
from d4rl_episodes import HOPPER, Fabricated, fabricate
from d4rl_files import d4rl_columns, write_columns, write_d4rl_file

from ringrl.data import EpisodeStore
from ringrl.data.sources import d4rl_columns as source_columns
from ringrl.data.sources.d4rl import build_from_d4rl, task_of_file
from ringrl.data.sources.d4rl_episodes import KITCHEN_TASKS, find_episodes, kitchen_rewards
from ringrl.data.sources.d4rl_tasks import find_task


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
