"""Minari sets in and out, judged by Minari's own loader and by gymnasium's own flattening."""

import os

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from minari_files import ACTIONS, NAME, VECTOR, open_set, sample_episodes, write_set

from ringrl.data import CollectedEpisode, open_dataset
from ringrl.data.config import DataConfig, Source
from ringrl.types import ActionKind, ActionSpec

pytestmark = pytest.mark.usefixtures("minari_root")
CHOICES = spaces.Discrete(4)
MAZE = spaces.Dict(
    {
        "observation": spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
        "achieved_goal": spaces.Dict({"z": spaces.Box(-9, 9, (1,)), "a": spaces.Discrete(3, start=-1)}),
        "inventory": spaces.MultiBinary(3),
        "doors": spaces.MultiDiscrete([2, 3]),
    }
)
MIXED = spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 255, (2,), np.uint8)))


@pytest.mark.parametrize("data_format", ["arrow", "hdf5", "parquet"])
@pytest.mark.parametrize(
    "observation_space", [VECTOR, spaces.Discrete(5), MAZE, MIXED], ids=["box", "n", "dict", "tuple"]
)
@pytest.mark.parametrize("action_space", [ACTIONS, CHOICES], ids=["continuous", "discrete"])
def test_round_trip(tmp_path, observation_space, action_space, data_format):
    episodes, flat = sample_episodes(observation_space, action_space)
    write_set(
        tmp_path, episodes, observation_space=observation_space, action_space=action_space, data_format=data_format
    )
    store = open_set(tmp_path)
    np.testing.assert_array_equal(store.observations, np.concatenate(flat))
    np.testing.assert_array_equal(store.actions, np.concatenate([episode.actions for episode in episodes]))
    np.testing.assert_array_equal(store.rewards, np.concatenate([episode.rewards for episode in episodes]))
    np.testing.assert_array_equal(store.lengths, [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(store.task_ids, [40, 40, 41, 41, 42])
    np.testing.assert_array_equal(store.terminated, [True, False, True, False, True])
    assert [store.metadata["policies"][i] for i in store.policy_ids] == ["random", "expert"] * 2 + ["random"]
    assert store.spec.action.kind == ("discrete" if action_space is CHOICES else "continuous")
    assert store.spec.observation_size == flat[0].shape[1]


@pytest.mark.parametrize("data_format", ["arrow", "hdf5"])
def test_minari_opens_what_is_written(tmp_path, data_format):
    episodes, _ = sample_episodes()
    write_set(
        tmp_path,
        episodes,
        data_format=data_format,
        env_spec=gymnasium.spec("CartPole-v1"),
        ref_min_score=1.0,
        ref_max_score=3.0,
        reference_scores={"random": 1.0, "expert": 3.0},
        description="a test",
    )
    dataset = minari.load_dataset(NAME)
    assert dataset.total_episodes == 5
    assert dataset.total_steps == 15
    assert dataset.env_spec.id == "CartPole-v1"
    assert dataset.storage.metadata["reference_scores"] == {"random": 1.0, "expert": 3.0}
    assert minari.get_normalized_score(dataset, np.array([2.0])) == 0.5
    assert list(minari.list_local_datasets()) == [NAME]
    for expected, episode in zip(episodes, dataset.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(episode.observations, expected.observations)
        np.testing.assert_array_equal(episode.actions, expected.actions)
        np.testing.assert_array_equal(episode.rewards, expected.rewards)
        assert (episode.terminations[-1], episode.truncations[-1]) == (expected.terminated, not expected.terminated)
        assert not episode.terminations[:-1].any()
        assert repr(episode)
    told = list(dataset.storage.get_episode_metadata(range(5)))
    assert [one["task_id"] for one in told] == [40, 40, 41, 41, 42]
    assert [one["options"]["task_id"] for one in told] == [40, 40, 41, 41, 42]
    assert [one["policy"] for one in told] == ["random", "expert"] * 2 + ["random"]
    assert [one["seed"] for one in told] == [100, 101, 102, 103, 104]
    store = open_set(tmp_path)
    assert store.metadata["ref_max_score"] == 3.0
    assert store.metadata["environment"] == "CartPole-v1"
    assert store.metadata["environment_spec"]["max_episode_steps"] == 500


def test_short_episodes_are_few_files_and_few_bytes(tmp_path):
    episodes = sample_episodes(count=4)[0] * 100
    folder = write_set(tmp_path, episodes)
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert sorted(file.name for file in files) == ["main_data.hdf5", "metadata.json"]
    assert sum(file.stat().st_size for file in files) < 3_500 * len(episodes)  # Minari's own writer takes 15,000 each
    assert minari.MinariDataset(folder / "data").total_steps == 100 * (1 + 2 + 3 + 4)


def test_long_episodes_and_more_of_them(tmp_path):
    rng = np.random.default_rng(0)
    many = [rng.normal(size=(size, 3)).astype(np.float32) for size in (5_001, 2_801, 2)]
    episodes = [
        CollectedEpisode(values, np.zeros((len(values) - 1, 2), np.float32), values[1:, 0], True) for values in many
    ]
    dataset = minari.MinariDataset(write_set(tmp_path, episodes) / "data")
    for values, episode in zip(many, dataset.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(episode.observations, values)
    more = EpisodeBuffer(
        observations=np.ones((3, 3), np.float32),
        actions=np.zeros((2, 2), np.float32),
        rewards=[1.0, 2.0],
        terminations=[False, True],
        truncations=[False, False],
        infos={},
    )
    dataset.update_dataset_from_buffer([more])
    assert open_set(tmp_path).returns[3] == 3.0


@pytest.mark.filterwarnings("ignore:.*is set to None.*:UserWarning", "ignore:env_spec is None.*:UserWarning")
@pytest.mark.parametrize("infos", [{}, {"task_id": np.array([6, 6, 6])}])
def test_a_set_that_others_made(tmp_path, infos):
    buffer = EpisodeBuffer(
        observations=np.zeros((3, 3), np.float32),
        actions=np.zeros((2, 2), np.float32),
        rewards=[1.0, 2.0],
        terminations=[False, True],
        truncations=[False, False],
        infos=infos,
    )
    minari.create_dataset_from_buffers(NAME, [buffer], observation_space=VECTOR, action_space=ACTIONS)
    store = open_set(tmp_path)
    np.testing.assert_array_equal(store.task_ids, [6 if infos else 0])
    np.testing.assert_array_equal(store.returns, [3.0])
    assert "environment" not in store.metadata


def test_a_set_is_read_once_and_again_when_it_changes(tmp_path, monkeypatch):
    write_set(tmp_path)
    calls = []
    first = open_dataset(DataConfig(name=NAME), tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 5) for i in range(1, 6)]
    assert first.path.parent == tmp_path / "stores"
    assert first.path.name.startswith("ringrl--test-v0-")
    again = open_dataset(DataConfig(name=NAME), tmp_path, progress=lambda done, total: pytest.fail("read again"))
    assert again.fingerprint == first.fingerprint
    write_set(tmp_path, sample_episodes(count=4)[0], overwrite=True)
    changed = open_set(tmp_path)
    assert changed.path != first.path
    assert changed.num_episodes == 4
    assert changed.fingerprint != first.fingerprint


def test_a_damaged_cache_is_built_again(tmp_path):
    write_set(tmp_path)
    first = open_set(tmp_path)
    (first.path / "rewards.npy").unlink()
    assert open_set(tmp_path).fingerprint == first.fingerprint


def test_top_fraction_and_a_store_as_source(tmp_path):
    write_set(tmp_path)
    store = open_set(tmp_path, top_fraction=0.1)
    np.testing.assert_array_equal(store.lengths, [2, 4, 5])
    same = open_dataset(DataConfig(source=Source.store, name=str(store.path), top_fraction=0.1), tmp_path)
    assert same.fingerprint == store.fingerprint


def test_without_minaris_variable_sets_live_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("MINARI_DATASETS_PATH")
    assert write_set(tmp_path) == tmp_path / "minari" / NAME
    assert "MINARI_DATASETS_PATH" not in os.environ
    assert open_set(tmp_path).num_episodes == 5


@pytest.mark.parametrize("data_format", ["arrow", "hdf5"])
@pytest.mark.parametrize(
    ("space", "spec", "stored"),
    [
        (spaces.Discrete(3, start=5), ActionSpec(ActionKind.discrete, 3, start=5), [2, 0]),
        (spaces.Discrete(3, start=-1), ActionSpec(ActionKind.discrete, 3, start=-1), [2, 0]),
        (spaces.Box(0, 9, (2,), np.int64), ActionSpec(ActionKind.continuous, 2, (0, 0), (9, 9)), [[9, 0], [4, 7]]),
        (spaces.Box(0, 255, (1,), np.uint8), ActionSpec(ActionKind.continuous, 1, (0,), (255,)), [[200], [3]]),
        (spaces.Box(-2, 2, (), np.float64), ActionSpec(ActionKind.continuous, 1, (-2,), (2,)), [[0.5], [2]]),
    ],
    ids=["from 5", "from -1", "integers", "bytes", "one number"],
)
def test_actions_that_begin_elsewhere_or_are_whole_numbers(tmp_path, data_format, space, spec, stored):
    actions = np.asarray(stored, space.dtype).reshape(2, *space.shape) + getattr(space, "start", 0)
    samples = {"observations": np.zeros((3, 3), np.float32), "actions": actions, "rewards": np.zeros(2)}
    write_set(tmp_path, [CollectedEpisode(**samples, terminated=True)], action_space=space, data_format=data_format)
    store = open_set(tmp_path)
    assert store.spec.action == spec
    np.testing.assert_array_equal(store.actions, stored)
