"""Failing names, downloads, writes and builds, and the files that they leave."""

import minari
import numpy as np
import pytest
from minari_files import ACTIONS, NAME, VECTOR, check_refused, open_set, sample_episodes, write_set

from ringrl.data import CollectedEpisode, open_dataset, write_minari_dataset
from ringrl.data import minari_writer as writer_module
from ringrl.data.config import DataConfig, Source
from ringrl.errors import RingRLError

pytestmark = pytest.mark.usefixtures("minari_root")


def test_names_that_cannot_be_opened(tmp_path, minari_root):
    check_refused(
        tmp_path,
        rf"{NAME} is not in {minari_root}: ",
    )
    check_refused(tmp_path, "data.name is empty", name="")
    check_refused(tmp_path, "'no version' is not a Minari id", name="no version")
    check_refused(tmp_path, "'ringrl/test' is not a Minari id", name="ringrl/test")
    check_refused(tmp_path, "there is no such folder", name=str(tmp_path / "nothing"), source=Source.store)


def test_a_failed_download_gives_one_line(tmp_path, monkeypatch):
    def unreachable(name):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("ringrl.data.sources.minari_sets.check_minari_host", lambda name, place: None)
    monkeypatch.setattr(minari, "download_dataset", unreachable)
    check_refused(tmp_path, f"{NAME} cannot be downloaded: ConnectionError: no route to host", download=True)


def test_a_store_that_cannot_be_read_now_is_kept(tmp_path, monkeypatch):
    write_set(tmp_path)
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


def test_an_existing_set_is_kept_unless_told_otherwise(tmp_path, minari_root):
    write_set(tmp_path)
    with pytest.raises(RingRLError, match=r"exists in .*overwrite=true"):
        write_set(tmp_path)
    write_set(tmp_path, sample_episodes(count=2)[0], overwrite=True)
    assert minari.load_dataset(NAME).total_episodes == 2
    assert [path.name for path in minari_root.iterdir()] == ["ringrl"]


def test_writing_faults_give_one_line(tmp_path):
    with pytest.raises(RingRLError, match="there are no episodes"):
        write_minari_dataset(NAME, [], cache_root=tmp_path, observation_space=VECTOR, action_space=ACTIONS)
    with pytest.raises(RingRLError, match="is not a Minari id"):
        write_minari_dataset("a/b-v0", [], cache_root=tmp_path, observation_space=VECTOR, action_space=ACTIONS)
    short = CollectedEpisode(np.zeros((2, 3), np.float32), np.zeros((2, 2), np.float32), np.zeros(2), True)
    with pytest.raises(RingRLError, match="episode 0: 2 observations, 2 actions and 2 rewards"):
        write_set(tmp_path, [short])


@pytest.mark.parametrize(
    ("fault", "raised", "message"),
    [
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
        (OSError(28, "No space left on device"), RingRLError, "the disk is full"),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_an_interrupted_write_leaves_no_half_set(tmp_path, minari_root, monkeypatch, fault, raised, message, exists):
    if exists:
        write_set(tmp_path, sample_episodes(count=1)[0])
    monkeypatch.setattr(writer_module, "_EPISODES_AT_ONCE", 2)

    def stop(done, total):
        if done == 4:
            raise fault

    with pytest.raises(raised, match=message):
        write_set(tmp_path, progress=stop, overwrite=exists)
    assert not [path for path in minari_root.iterdir() if path.name != "ringrl"]
    assert list(minari.list_local_datasets()) == ([NAME] if exists else [])
    if exists:
        assert minari.load_dataset(NAME).total_episodes == 1


def test_an_interrupted_build_leaves_no_store(tmp_path):
    write_set(tmp_path)

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_dataset(DataConfig(name=NAME), tmp_path, progress=stop)
    assert list((tmp_path / "stores").iterdir()) == []
    assert open_set(tmp_path).num_episodes == 5


def test_a_set_that_another_process_builds_meanwhile_is_opened(tmp_path, monkeypatch):
    from ringrl.data import datasets

    write_set(tmp_path)
    build = datasets.build_from_minari

    def beaten(*arguments, **options):
        build(*arguments, **options)
        return build(*arguments, **options)  # the place is taken

    monkeypatch.setattr(datasets, "build_from_minari", beaten)
    assert open_set(tmp_path).num_episodes > 0
