"""Minari sets in and out, judged by Minari's own loader and by gymnasium's own flattening."""

import json
import os
import shutil

import gymnasium
import h5py
import minari
import numpy as np
import pyarrow as pa
import pytest
from gymnasium import spaces
from gymnasium.spaces.utils import flatten
from minari.data_collector import EpisodeBuffer

from ringrl.data import CollectedEpisode, EpisodeStore, open_dataset, write_minari_dataset
from ringrl.data import minari_writer as writer_module
from ringrl.data.config import DataConfig, Source
from ringrl.data.sources.minari import build_from_minari
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec

NAME = "ringrl/test-v0"
VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS = spaces.Box(-1, 1, (2,), np.float32)
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


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """Minari's own root: the one that `open_dataset` and `minari.load_dataset` both use."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    return tmp_path / "sets"


def stack(space, samples):
    if isinstance(space, spaces.Dict):
        return {key: stack(part, [sample[key] for sample in samples]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stack(part, [sample[i] for sample in samples]) for i, part in enumerate(space.spaces))
    return np.stack([np.asarray(sample) for sample in samples])


def sample_episodes(observation_space=VECTOR, action_space=ACTIONS, count=5):
    """Episodes of 1, 2, 3 ... steps, and the flat observations that gymnasium makes of them."""
    observation_space.seed(0)
    action_space.seed(0)
    episodes, flat = [], []
    for index in range(count):
        samples = [observation_space.sample() for _ in range(index + 2)]
        actions = np.stack([action_space.sample() for _ in range(index + 1)])
        flat.append(np.stack([flatten(observation_space, one) for one in samples[:-1]]).astype(np.float32))
        episodes.append(
            CollectedEpisode(
                observations=stack(observation_space, samples),
                actions=actions,
                rewards=np.arange(index + 1.0) - 0.5,
                terminated=index % 2 == 0,
                task_id=index // 2 + 40,
                policy=("random", "expert")[index % 2],
                seed=100 + index,
            )
        )
    return episodes, flat


def write(tmp_path, episodes=None, **changes):
    options = {"cache_root": tmp_path, "observation_space": VECTOR, "action_space": ACTIONS} | changes
    return write_minari_dataset(NAME, episodes or sample_episodes()[0], **options)


def open_set(tmp_path, **changes) -> EpisodeStore:
    return open_dataset(DataConfig(name=NAME, **changes), tmp_path)


@pytest.mark.parametrize("data_format", ["arrow", "hdf5", "parquet"])
@pytest.mark.parametrize(
    "observation_space", [VECTOR, spaces.Discrete(5), MAZE, MIXED], ids=["box", "n", "dict", "tuple"]
)
@pytest.mark.parametrize("action_space", [ACTIONS, CHOICES], ids=["continuous", "discrete"])
def test_round_trip(tmp_path, observation_space, action_space, data_format):
    episodes, flat = sample_episodes(observation_space, action_space)
    write(tmp_path, episodes, observation_space=observation_space, action_space=action_space, data_format=data_format)
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
    write(
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
    folder = write(tmp_path, episodes)
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
    dataset = minari.MinariDataset(write(tmp_path, episodes) / "data")
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
    write(tmp_path)
    calls = []
    first = open_dataset(DataConfig(name=NAME), tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 5) for i in range(1, 6)]
    assert first.path.parent == tmp_path / "stores"
    assert first.path.name.startswith("ringrl--test-v0-")
    again = open_dataset(DataConfig(name=NAME), tmp_path, progress=lambda done, total: pytest.fail("read again"))
    assert again.fingerprint == first.fingerprint
    write(tmp_path, sample_episodes(count=4)[0], overwrite=True)
    changed = open_set(tmp_path)
    assert changed.path != first.path
    assert changed.num_episodes == 4
    assert changed.fingerprint != first.fingerprint


def test_a_damaged_cache_is_built_again(tmp_path):
    write(tmp_path)
    first = open_set(tmp_path)
    (first.path / "rewards.npy").unlink()
    assert open_set(tmp_path).fingerprint == first.fingerprint


def test_top_fraction_and_a_store_as_source(tmp_path):
    write(tmp_path)
    store = open_set(tmp_path, top_fraction=0.1)
    np.testing.assert_array_equal(store.lengths, [2, 4, 5])
    same = open_dataset(DataConfig(source=Source.store, name=str(store.path), top_fraction=0.1), tmp_path)
    assert same.fingerprint == store.fingerprint


def test_without_minaris_variable_sets_live_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("MINARI_DATASETS_PATH")
    assert write(tmp_path) == tmp_path / "minari" / NAME
    assert "MINARI_DATASETS_PATH" not in os.environ
    assert open_set(tmp_path).num_episodes == 5


def _fails(tmp_path, message, **changes):
    with pytest.raises(RingRLError, match=message) as caught:
        open_dataset(DataConfig(**({"name": NAME} | changes)), tmp_path)
    assert "\n" not in str(caught.value)
    stores = tmp_path / "stores"
    assert not stores.exists() or list(stores.iterdir()) == []


def test_names_that_cannot_be_opened(tmp_path, root):
    _fails(
        tmp_path,
        rf"{NAME} is not in {root}: ",
    )
    _fails(tmp_path, "data.name is empty", name="")
    _fails(tmp_path, "'no version' is not a Minari id", name="no version")
    _fails(tmp_path, "'ringrl/test' is not a Minari id", name="ringrl/test")
    _fails(tmp_path, "there is no such folder", name=str(tmp_path / "nothing"), source=Source.store)


def test_a_failed_download_gives_one_line(tmp_path, monkeypatch):
    def unreachable(name):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("ringrl.data.sources.minari_sets.check_minari_host", lambda name, place: None)
    monkeypatch.setattr(minari, "download_dataset", unreachable)
    _fails(tmp_path, f"{NAME} cannot be downloaded: ConnectionError: no route to host", download=True)


def _no_metadata(folder):
    (folder / "metadata.json").unlink()


def _broken_metadata(folder):
    (folder / "metadata.json").write_text("{")


def _missing_episode(folder):
    shutil.rmtree(folder / "3")


def _cut_episode(folder):
    (file,) = (folder / "3").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:100])


def _cut_hdf5(folder):
    file = folder / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _nothing_in_it(folder):
    shutil.rmtree(folder)


def _metadata(**changes):
    """Damage: these keys of metadata.json, None to drop one."""

    def change(folder):
        metadata = json.loads((folder / "metadata.json").read_text()) | changes
        kept = {key: value for key, value in metadata.items() if value is not None}
        (folder / "metadata.json").write_text(json.dumps(kept))

    return change


def _column(name, values):
    """Damage: episode 3 of an HDF5 set with that column, None to drop it."""

    def change(folder):
        with h5py.File(folder / "main_data.hdf5", "r+") as file:
            del file[f"episode_3/{name}"]
            if values is not None:
                file[f"episode_3/{name}"] = values

    return change


def _no_steps(folder):
    for name in ("observations", "actions", "rewards", "terminations", "truncations"):
        _column(name, np.zeros((0, 3) if name == "observations" else 0))(folder)


def _table(change):
    """Damage: the columns of episode 3 of an arrow set, changed."""

    def rewrite(folder):
        (file,) = (folder / "3").glob("*.arrow")
        columns = change(pa.ipc.open_file(file.read_bytes()).read_all())
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, columns.schema) as writer:
            writer.write_table(columns)

    return rewrite


def _no_arrow(folder):
    (file,) = (folder / "3").glob("*.arrow")
    file.write_text("not an arrow file")


def _broken_episode_metadata(folder):
    (folder / "3" / "metadata.json").write_text("[")


def _gap(table):
    rewards = pa.array([None, *table.column("rewards").to_pylist()[1:]], pa.float64())
    return table.set_column(table.column_names.index("rewards"), "rewards", rewards)


@pytest.mark.parametrize(
    ("data_format", "damage", "what"),
    [
        ("arrow", _no_metadata, "metadata.json is missing"),
        ("arrow", _broken_metadata, "JSONDecodeError"),
        ("arrow", _missing_episode, "counts 5 episodes, its files hold 4"),
        ("arrow", _cut_episode, "episode 3: "),
        ("hdf5", _cut_hdf5, "OSError"),
        ("arrow", _nothing_in_it, "metadata.json is missing"),
        ("hdf5", _metadata(total_episodes=6), "counts 6 episodes, its files hold 5"),
        ("hdf5", _metadata(total_episodes=4), "counts 4 episodes, its files hold 5"),
        ("arrow", _metadata(total_episodes="many"), "invalid literal"),
        ("arrow", _metadata(data_format=None), "metadata.json lacks 'data_format'"),
        ("arrow", _metadata(observation_space=None), "metadata.json lacks 'observation_space'"),
        ("arrow", _metadata(env_spec="{"), "JSONDecodeError"),
        ("hdf5", _column("rewards", None), "episode 3: Contradiction: there is no rewards"),
        ("hdf5", _column("actions", np.zeros((2, 2))), "episode 3: .*5 observations, 2 actions and 4 rewards"),
        ("hdf5", _column("actions", np.zeros((4, 3))), r"episode 3: .*actions have shape \(4, 3\), expected 2 numbers"),
        ("hdf5", _column("observations", np.zeros((5, 2))), r"episode 3: .*have shape \(5, 2\), expected \(steps, 3\)"),
        ("arrow", _no_arrow, "episode 3: ArrowInvalid"),
        ("arrow", _broken_episode_metadata, "episode 3: JSONDecodeError"),
        ("arrow", _table(lambda table: table.drop_columns("actions")), "episode 3: .*there is no column 'actions'"),
        ("arrow", _table(lambda table: pa.table({"word": ["foreign"] * 5})), "episode 3: .*no column 'observations'"),
        ("arrow", _table(lambda table: table.slice(0, 3)), "episode 3: Contradiction: 3 rows for 4 steps"),
        ("arrow", _table(_gap), "episode 3: Contradiction: rewards have gaps"),
    ],
)
def test_a_damaged_set_gives_one_line(tmp_path, data_format, damage, what):
    damage(write(tmp_path, data_format=data_format) / "data")
    _fails(tmp_path, rf"{NAME} in .* is damaged or half-downloaded \(.*{what}.*\): move that folder away")


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (_metadata(data_format="zarr"), "zarr"),
        (_column("rewards", ["much"] * 4), "episode 3: ValueError: rewards hold object values, not numbers"),
        (_no_steps, "episode 3: ValueError: it has no steps"),
    ],
)
def test_what_cannot_be_read_is_not_called_damaged(tmp_path, damage, what):
    damage(write(tmp_path, data_format="hdf5") / "data")
    _fails(tmp_path, rf"{NAME} in .* cannot be read \(.*{what}.*\); nothing shows that it is damaged, so keep it")


def test_a_file_that_another_process_holds_is_not_called_damaged(tmp_path, monkeypatch):
    write(tmp_path, data_format="hdf5")

    def held(*arguments, **options):
        raise BlockingIOError(11, "Unable to synchronously open file (unable to lock file, errno = 11)")

    monkeypatch.setattr(h5py, "File", held)
    _fails(tmp_path, rf"{NAME} in .* cannot be read now \(BlockingIOError: .*unable to lock file")


def test_a_store_that_cannot_be_read_now_is_kept(tmp_path, monkeypatch):
    write(tmp_path)
    store = open_set(tmp_path)
    opened = type(store.path).open

    def refused(path, *arguments, **options):
        if path.name == "rewards.npy":
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(store.path), "open", refused)
        with pytest.raises(RingRLError, match=r"rewards\.npy: cannot be read now \(Permission denied\)"):
            open_set(tmp_path)
    assert open_set(tmp_path).fingerprint == store.fingerprint


def test_a_set_of_another_minari_gives_one_line(tmp_path):
    _metadata(minari_version="0.2.1")(write(tmp_path) / "data")
    _fails(tmp_path, r"written by Minari 0\.2\.1, which the installed .* does not read: fetch a later version")


def test_a_failed_build_leaves_the_store_that_it_was_to_replace(tmp_path):
    folder = write(tmp_path, data_format="arrow") / "data"
    store = build_from_minari(NAME, folder, tmp_path / "store")
    _missing_episode(folder)
    with pytest.raises(RingRLError, match="its files hold 4"):
        build_from_minari(NAME, folder, tmp_path / "store", overwrite=True)
    assert EpisodeStore.open(tmp_path / "store").fingerprint == store.fingerprint
    write(tmp_path, sample_episodes(count=2)[0], overwrite=True)
    assert build_from_minari(NAME, folder, tmp_path / "store", overwrite=True).num_episodes == 2


def test_a_faulty_episode_is_named(tmp_path):
    episodes, _ = sample_episodes()
    episodes[3].rewards[2] = np.nan
    write(tmp_path, episodes)
    _fails(tmp_path, rf"Minari set {NAME}, episode 3, step 2: rewards holds nan")


def test_spaces_that_are_not_supported(tmp_path):
    graphs = json.dumps({"type": "Dict", "subspaces": {"map": {"type": "Graph"}}})
    _metadata(observation_space=graphs)(write(tmp_path) / "data")
    _fails(tmp_path, "Graph spaces are not supported")
    shutil.rmtree(tmp_path / "sets")
    text = spaces.Text(5)
    samples = {"observations": ["ab", "cd"], "actions": np.zeros((1, 2), np.float32), "rewards": np.zeros(1)}
    write(tmp_path, [CollectedEpisode(**samples, terminated=True)], observation_space=text)
    _fails(tmp_path, "Text observations are not supported")
    samples = {"observations": np.zeros((2, 3), np.float32), "actions": np.ones((1, 2), int), "rewards": np.zeros(1)}
    episodes = [CollectedEpisode(**samples, terminated=True)]
    write(tmp_path, episodes, action_space=spaces.MultiDiscrete([2, 3]), overwrite=True)
    _fails(tmp_path, r"MultiDiscrete\(\[2 3\]\) actions are not supported")


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
    write(tmp_path, [CollectedEpisode(**samples, terminated=True)], action_space=space, data_format=data_format)
    store = open_set(tmp_path)
    assert store.spec.action == spec
    np.testing.assert_array_equal(store.actions, stored)


def test_an_existing_set_is_kept_unless_told_otherwise(tmp_path, root):
    write(tmp_path)
    with pytest.raises(RingRLError, match=r"exists in .*overwrite=true"):
        write(tmp_path)
    write(tmp_path, sample_episodes(count=2)[0], overwrite=True)
    assert minari.load_dataset(NAME).total_episodes == 2
    assert [path.name for path in root.iterdir()] == ["ringrl"]


def test_writing_faults_give_one_line(tmp_path):
    with pytest.raises(RingRLError, match="there are no episodes"):
        write_minari_dataset(NAME, [], cache_root=tmp_path, observation_space=VECTOR, action_space=ACTIONS)
    with pytest.raises(RingRLError, match="is not a Minari id"):
        write_minari_dataset("a/b-v0", [], cache_root=tmp_path, observation_space=VECTOR, action_space=ACTIONS)
    short = CollectedEpisode(np.zeros((2, 3), np.float32), np.zeros((2, 2), np.float32), np.zeros(2), True)
    with pytest.raises(RingRLError, match="episode 0: 2 observations, 2 actions and 2 rewards"):
        write(tmp_path, [short])


@pytest.mark.parametrize(
    ("fault", "raised", "message"),
    [
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
        (OSError(28, "No space left on device"), RingRLError, "the disk is full"),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_an_interrupted_write_leaves_no_half_set(tmp_path, root, monkeypatch, fault, raised, message, exists):
    if exists:
        write(tmp_path, sample_episodes(count=1)[0])
    monkeypatch.setattr(writer_module, "_EPISODES_AT_ONCE", 2)

    def stop(done, total):
        if done == 4:
            raise fault

    with pytest.raises(raised, match=message):
        write(tmp_path, progress=stop, overwrite=exists)
    assert not [path for path in root.iterdir() if path.name != "ringrl"]
    assert list(minari.list_local_datasets()) == ([NAME] if exists else [])
    if exists:
        assert minari.load_dataset(NAME).total_episodes == 1


def test_an_interrupted_build_leaves_no_store(tmp_path):
    write(tmp_path)

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_dataset(DataConfig(name=NAME), tmp_path, progress=stop)
    assert list((tmp_path / "stores").iterdir()) == []
    assert open_set(tmp_path).num_episodes == 5


def test_a_set_that_another_process_builds_meanwhile_is_opened(tmp_path, monkeypatch):
    from ringrl.data import datasets

    write(tmp_path)
    build = datasets.build_from_minari

    def beaten(*arguments, **options):
        build(*arguments, **options)
        return build(*arguments, **options)  # the place is taken

    monkeypatch.setattr(datasets, "build_from_minari", beaten)
    assert open_set(tmp_path).num_episodes > 0
