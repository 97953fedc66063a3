"""Labels of tasks and policies in external sets: numbers, names, one-hot vectors, and values without a label."""

import json

import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from ringrl.data import check_store, open_dataset
from ringrl.data.config import DataConfig
from ringrl.data.joined import task_name
from ringrl.data.sources.labels import number_tasks, policy_name, to_label

NAME = "ringrl/labels-v0"
STEPS = 2


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (3, 3),
        (np.int64(3), 3),
        (2.0, 2),
        (True, 1),
        (1.7, "1.7"),
        ("reach", "reach"),
        (b"reach", "reach"),
        (np.array("reach"), "reach"),
        (np.array([b"reach"], object), "reach"),
        (np.array([4]), 4),
        ([0.0, 0.0, 1.0], 2),
        (np.array([0, 1, 0], bool), 1),
        ([0.5, 0.5], "[0.5 0.5]"),
        (np.zeros(3), "[0 0 0]"),
        (None, None),
        (float("nan"), None),
        (np.zeros(0), None),
        ({"name": 1}, None),
        ([[1], [2, 3]], None),
    ],
)
def test_what_a_value_tells(value, label):
    assert to_label(value) == label


def test_policies_are_texts_and_numbers_alone():
    told = ["expert", b"expert", 2, [0, 1], np.array(["expert"]), 0.7, [0.2, 0.8], np.zeros(2), None, {}]
    assert [policy_name(value) for value in told] == ["expert", "expert", "2", "1", "expert", "", "", "", "", ""]


def test_tasks_are_the_numbers_told_or_else_numbers_of_names():
    assert number_tasks([4, 0, None, 4]) == ([4, 0, 0, 4], None)
    assert number_tasks(["reach", "push", "reach"]) == ([1, 0, 1], ["push", "reach"])
    assert number_tasks(["reach", 7, None]) == ([1, 0, 2], ["7", "reach", "unnamed"])
    assert number_tasks([-1, 1 << 40, -1]) == ([0, 1, 0], ["-1", str(1 << 40)])
    assert number_tasks(["1.7", 1]) == ([1, 0], ["1", "1.7"])


def collected(root, monkeypatch, data_format, told):
    """A set of one episode for each of `told`: (options, infos) of it."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root / "sets"))
    buffers = [
        EpisodeBuffer(
            options=options,
            observations=np.zeros((STEPS + 1, 1), np.float32),
            actions=np.zeros((STEPS, 1), np.float32),
            rewards=[1.0] * STEPS,
            terminations=[False] * STEPS,
            truncations=[False] * (STEPS - 1) + [True],
            infos=infos,
        )
        for options, infos in told
    ]
    box = spaces.Box(-1, 1, (1,), np.float32)
    minari.create_dataset_from_buffers(
        NAME, buffers, observation_space=box, action_space=box, data_format=data_format, requirements=[]
    )
    store = open_dataset(DataConfig(name=NAME), root)
    assert check_store(store) == []
    return store


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("data_format", ["arrow", "hdf5", "parquet"])
@pytest.mark.parametrize("place", ["options", "infos"])
@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        (["reach", "push", "reach"], [1, 0, 1], ["reach", "push", "reach"]),
        ([np.array([0, 0, 1]), np.array([1, 0, 0]), np.array([0, 0, 1])], [2, 0, 2], ["2", "0", "2"]),
        ([1.7, 1.0, 1.7], [1, 0, 1], ["1.7", "1", "1.7"]),
        ([5, 3, 5], [5, 3, 5], ["5", "3", "5"]),
    ],
    ids=["text", "one-hot", "fractions", "numbers"],
)
def test_task_labels_of_any_kind(tmp_path, monkeypatch, data_format, place, labels, numbers, names):
    def told(label):
        if place == "options":
            return {"task_id": label.tolist() if isinstance(label, np.ndarray) else label}, {}
        return None, {"task_id": [label] * (STEPS + 1) if isinstance(label, str) else np.array([label] * (STEPS + 1))}

    store = collected(tmp_path, monkeypatch, data_format, [told(label) for label in labels])
    assert store.task_ids.tolist() == numbers
    assert [task_name(store, task) for task in store.task_ids.tolist()] == names


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("data_format", ["arrow", "hdf5"])
def test_a_policys_output_is_not_its_name(tmp_path, monkeypatch, data_format):
    rng = np.random.default_rng(0)
    told = [(None, {"policy": rng.random((STEPS + 1, 3)), "task_id": np.full(STEPS + 1, 1)}) for _ in range(4)]
    store = collected(tmp_path, monkeypatch, data_format, told)
    assert store.metadata["policies"] == [""]
    assert store.task_ids.tolist() == [1] * 4
    assert "task_names" not in json.loads((store.path / "metadata.json").read_text())
