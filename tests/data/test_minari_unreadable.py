"""Minari sets that are damaged, incomplete or unsupported: one line each, and no store."""

import json
import shutil

import h5py
import numpy as np
import pyarrow as pa
import pytest
from gymnasium import spaces
from minari_files import NAME, check_refused, sample_episodes, write_set

from ringrl.data import CollectedEpisode, EpisodeStore
from ringrl.data.sources.minari import build_from_minari
from ringrl.errors import RingRLError

pytestmark = pytest.mark.usefixtures("minari_root")


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
    damage(write_set(tmp_path, data_format=data_format) / "data")
    check_refused(tmp_path, rf"{NAME} in .* is damaged or half-downloaded \(.*{what}.*\): move that folder away")


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (_metadata(data_format="zarr"), "zarr"),
        (_column("rewards", ["much"] * 4), "episode 3: ValueError: rewards hold object values, not numbers"),
        (_no_steps, "episode 3: ValueError: it has no steps"),
    ],
)
def test_what_cannot_be_read_is_not_called_damaged(tmp_path, damage, what):
    damage(write_set(tmp_path, data_format="hdf5") / "data")
    check_refused(
        tmp_path, rf"{NAME} in .* cannot be read \(.*{what}.*\); nothing shows that it is damaged, so keep it"
    )


def test_a_file_that_another_process_holds_is_not_called_damaged(tmp_path, monkeypatch):
    write_set(tmp_path, data_format="hdf5")

    def held(*arguments, **options):
        raise BlockingIOError(11, "Unable to synchronously open file (unable to lock file, errno = 11)")

    monkeypatch.setattr(h5py, "File", held)
    check_refused(tmp_path, rf"{NAME} in .* cannot be read now \(BlockingIOError: .*unable to lock file")


def test_a_set_of_another_minari_gives_one_line(tmp_path):
    _metadata(minari_version="0.2.1")(write_set(tmp_path) / "data")
    check_refused(tmp_path, r"written by Minari 0\.2\.1, which the installed .* does not read: fetch a later version")


def test_a_failed_build_leaves_the_store_that_it_was_to_replace(tmp_path):
    folder = write_set(tmp_path, data_format="arrow") / "data"
    store = build_from_minari(NAME, folder, tmp_path / "store")
    _missing_episode(folder)
    with pytest.raises(RingRLError, match="its files hold 4"):
        build_from_minari(NAME, folder, tmp_path / "store", overwrite=True)
    assert EpisodeStore.open(tmp_path / "store").fingerprint == store.fingerprint
    write_set(tmp_path, sample_episodes(count=2)[0], overwrite=True)
    assert build_from_minari(NAME, folder, tmp_path / "store", overwrite=True).num_episodes == 2


def test_a_faulty_episode_is_named(tmp_path):
    episodes, _ = sample_episodes()
    episodes[3].rewards[2] = np.nan
    write_set(tmp_path, episodes)
    check_refused(tmp_path, rf"Minari set {NAME}, episode 3, step 2: rewards holds nan")


def test_spaces_that_are_not_supported(tmp_path):
    graphs = json.dumps({"type": "Dict", "subspaces": {"map": {"type": "Graph"}}})
    _metadata(observation_space=graphs)(write_set(tmp_path) / "data")
    check_refused(tmp_path, "Graph spaces are not supported")
    shutil.rmtree(tmp_path / "sets")
    text = spaces.Text(5)
    samples = {"observations": ["ab", "cd"], "actions": np.zeros((1, 2), np.float32), "rewards": np.zeros(1)}
    write_set(tmp_path, [CollectedEpisode(**samples, terminated=True)], observation_space=text)
    check_refused(tmp_path, "Text observations are not supported")
    samples = {"observations": np.zeros((2, 3), np.float32), "actions": np.ones((1, 2), int), "rewards": np.zeros(1)}
    episodes = [CollectedEpisode(**samples, terminated=True)]
    write_set(tmp_path, episodes, action_space=spaces.MultiDiscrete([2, 3]), overwrite=True)
    check_refused(tmp_path, r"MultiDiscrete\(\[2 3\]\) actions are not supported")
