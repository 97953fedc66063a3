"""Minari's public sets: named in the config, downloaded only on request, with their scores and environments."""

import json
import socket
import sys
import warnings

import hydra
import minari
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from minari.data_collector import EpisodeBuffer

from ringrl.cli.compose import build_command, find_conf_folder, register
from ringrl.cli.environments import find_environment
from ringrl.config import EnvConfig, TrainCommand
from ringrl.data import open_dataset
from ringrl.data.config import DataConfig
from ringrl.data.known_sets import COLLECTED, PUBLIC, find_known_name, known_names
from ringrl.data.sources.minari_sets import check_minari_id
from ringrl.errors import RingRLError

pytestmark = pytest.mark.usefixtures("minari_root")

NAME = "D4RL/antmaze/umaze-v1"


@pytest.fixture
def offline(monkeypatch):
    """Any network connection fails the test."""

    def connect(self, address):
        pytest.fail(f"something connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("something looks up a host"))


def test_known_sets_have_ids_that_minari_takes():
    public = [name for family in PUBLIC for name in family.names]
    assert (len(public), len(set(known_names()))) == (54, 54 + len(COLLECTED))
    for name in known_names():
        check_minari_id(name)
    assert {"D4RL/pointmaze/open-dense-v2", "D4RL/door/cloned-v2", "mujoco/humanoid/simple-v0"} <= set(public)
    assert [family.pattern for family in PUBLIC][2] == "D4RL/kitchen/{complete, partial, mixed}-v2"


def test_a_known_set_is_found_however_it_is_spelled():
    for text in ("d4rl/pen_human", "D4RL/pen/human", "D4RL/pen/human-v2", "d4rl-pen-human-v0"):
        assert find_known_name(text) == "D4RL/pen/human-v2"
    assert find_known_name("ringrl/dark_room-v0") == "ringrl/dark_room-v0"
    assert find_known_name("d4rl/pen") is None


def test_a_public_set_is_not_fetched_unasked(tmp_path, offline):
    register(["train"])
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(find_conf_folder())):
        told = hydra.compose("train", overrides=["data.name=D4RL/kitchen/mixed-v2"])
    config = build_command(TrainCommand, told).data
    assert config == DataConfig(name="D4RL/kitchen/mixed-v2")
    with pytest.raises(RingRLError, match=r"D4RL/kitchen/mixed-v2 is not in .* a public set, and data\.download=true"):
        open_dataset(config, tmp_path)


def write(name=NAME, spec=None, steps=(3, 2), observation_space=None, data_format="arrow", scalars=True, **metadata):
    """A set as Minari's own functions write one, in Minari's own root, and its metadata.json changed."""
    metadata |= {} if spec is None else {"env_spec": spec.to_json()}
    space = observation_space or spaces.Box(-9, 9, (2,), np.float32)
    buffers = [
        EpisodeBuffer(
            observations=np.ones((count + 1, *space.shape), space.dtype),
            actions=np.zeros((count, 1), np.float32),
            rewards=[1.0] * count,
            terminations=[False] * count,
            truncations=[False] * (count - 1) + [True],
            infos={"goal": np.zeros((count + 1, 2))} | ({"success": np.zeros(count + 1, bool)} if scalars else {}),
        )
        for count in steps
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            name,
            buffers,
            observation_space=space,
            action_space=spaces.Box(-1, 1, (1,), np.float32),
            data_format=data_format,
        )
        file = minari.storage.get_dataset_path(name) / "data" / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | metadata))


def fake_download(monkeypatch, write_set):
    asked = []

    def download(name):
        asked.append(name)
        write_set(name)

    monkeypatch.setattr(minari, "download_dataset", download)
    monkeypatch.setattr("ringrl.data.sources.minari_sets.check_minari_host", lambda name, place: None)
    return asked


def test_a_host_that_refuses_is_one_line_at_once(tmp_path, minari_root, monkeypatch):
    """All that a download needs is installed: it comes as far as the network, which is asked once."""
    with socket.socket() as taken:  # bound, but listening to no one: who connects is refused
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "MINARI_REMOTE"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setattr(minari, "download_dataset", lambda name: pytest.fail("Minari's client tries six times"))
        with pytest.raises(RingRLError) as caught:
            open_dataset(DataConfig(name=NAME, download=True), tmp_path)
    line = str(caught.value)
    assert "\n" not in line
    assert f"{NAME} cannot be downloaded: {endpoint} does not answer" in line
    assert "refused" in line
    assert "HTTPS_PROXY" in line
    assert str(minari_root / NAME) in line
    assert not minari_root.exists()


def test_a_missing_client_is_named(tmp_path, minari_root, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(RingRLError, match=r"cannot be downloaded: .*pip install 'minari\[hf\]'"):
        open_dataset(DataConfig(name=NAME, download=True), tmp_path)


def test_a_download_is_asked_for_once_and_moves_into_place(tmp_path, minari_root, monkeypatch, offline):
    asked = fake_download(monkeypatch, lambda name: (print("Downloading"), write(name)))
    for _ in range(2):
        store = open_dataset(DataConfig(name=NAME, download=True), tmp_path)
    assert asked == [NAME]
    assert store.num_episodes == 2
    assert list(minari.list_local_datasets()) == [NAME]
    assert {path.name for path in (minari_root / "D4RL" / "antmaze").iterdir()} == {
        "umaze-v1",
        "namespace_metadata.json",
    }
    assert [path.name for path in (minari_root / NAME).iterdir()] == ["data"]


def _in_the_middle(fault):
    def write_set(name):
        write(name)
        raise fault

    return write_set


@pytest.mark.parametrize(
    ("write_set", "raised", "message"),
    [
        (_in_the_middle(ConnectionError("no route\nto host")), RingRLError, "downloaded: ConnectionError: no route to"),
        (
            _in_the_middle(ValueError("no such version")),
            RingRLError,
            "cannot be downloaded: ValueError: no such version",
        ),
        (_in_the_middle(KeyboardInterrupt("stop")), KeyboardInterrupt, "stop"),
        (lambda name: None, RingRLError, "its host sent no metadata.json; try again"),
    ],
)
def test_a_download_that_fails_leaves_nothing(tmp_path, minari_root, monkeypatch, write_set, raised, message):
    fake_download(monkeypatch, write_set)
    with pytest.raises(raised, match=message) as caught:
        open_dataset(DataConfig(name=NAME, download=True), tmp_path)
    assert "\n" not in str(caught.value)
    assert [path for path in minari_root.rglob("*") if path.name not in ("D4RL", "antmaze")] == []


def _spec(env_id="CartPole-v1", **kwargs):
    limit = kwargs.pop("max_episode_steps", None)
    return EnvSpec(env_id, "module:Class", max_episode_steps=limit, kwargs=kwargs)


MAP = [[1, 1, 1], [1, 0, 1], [1, 1, 1]]


def metadata_of(tmp_path, name=NAME, **written):
    write(name, **written)
    return open_dataset(DataConfig(name=name), tmp_path).metadata


def test_the_environment_for_evaluation_comes_first(tmp_path):
    recorded = _spec("AntMaze_UMaze-v4", maze_map=MAP, continuing_task=True, max_episode_steps=700)
    evaluated = _spec("AntMaze_UMaze-v4", maze_map=[*MAP, [1, 1, 1]], continuing_task=True, max_episode_steps=700)
    metadata = metadata_of(tmp_path, spec=recorded, eval_env_spec=evaluated.to_json())
    assert metadata["environment"] == "AntMaze_UMaze-v4"
    assert metadata["environment_spec"]["kwargs"] == evaluated.kwargs
    assert metadata["recorded_environment_spec"]["kwargs"] == recorded.kwargs
    chosen = find_environment(EnvConfig(), metadata)
    assert chosen.id == chosen.spec.id == "AntMaze_UMaze-v4"
    assert chosen.spec.kwargs == evaluated.kwargs


@pytest.mark.parametrize(
    ("limit", "kept"), [(450, 450), (1_000_000.0, None), (100_000, None), (99_999, 99_999), (None, None)]
)
def test_a_collectors_budget_is_no_time_limit(tmp_path, limit, kept):
    spec = json.dumps({"id": "CartPole-v1", "kwargs": {}, "max_episode_steps": limit})
    metadata = metadata_of(tmp_path, env_spec=spec, eval_env_spec=None)
    assert metadata["environment_spec"]["max_episode_steps"] == kept
    assert find_environment(EnvConfig(), metadata).spec.max_episode_steps == (500 if kept is None else kept)


@pytest.mark.parametrize(
    ("name", "spec", "told", "expected"),
    [
        ("D4RL/pen/human-v2", _spec(), {}, (96.262799, 3076.8331017826877)),
        ("D4RL/pen/human-v2", _spec(), {"ref_min_score": 1.0, "ref_max_score": 2.0}, (1.0, 2.0)),
        ("D4RL/kitchen/mixed-v2", _spec(), {}, (0.0, 4.0)),
        # Paid for a finished task at every step, or for every step at the goal: 4 and 1 are not the most there is.
        ("D4RL/kitchen/mixed-v2", _spec(remove_task_when_completed=False), {}, None),
        (NAME, _spec(maze_map=MAP, continuing_task=False), {}, (0.0, 1.0)),
        (NAME, _spec(maze_map=MAP), {}, None),
        ("mujoco/hopper/medium-v0", _spec(), {}, None),
    ],
)
def test_reference_scores_are_the_sets_own_else_d4rls(tmp_path, name, spec, told, expected):
    metadata = metadata_of(tmp_path, name, spec=spec, **told)
    found = (metadata["ref_min_score"], metadata["ref_max_score"]) if "ref_min_score" in metadata else None
    assert found == expected


def test_infos_that_minari_cannot_read_do_no_harm(tmp_path):
    write(data_format="arrow")  # `success` is a scalar a step: Minari 0.5.4 fails at it
    assert open_dataset(DataConfig(name=NAME), tmp_path).num_steps == 5


def test_images_are_left_to_minari(tmp_path):
    images = spaces.Box(0, 255, (32, 32), np.uint8)
    for data_format in ("arrow", "hdf5"):
        name = f"ringrl/{data_format}-v0"
        write(name, observation_space=images, data_format=data_format, scalars=False)
        store = open_dataset(DataConfig(name=name), tmp_path)
        np.testing.assert_allclose(store.observations, np.ones((5, 1024)), atol=8)  # JPEG
