"""Each part of a store is damaged in turn and reported by the exact line; statistics of a store."""

import json

import numpy as np
import pytest

from ringrl.data import EpisodeStoreWriter
from ringrl.data import checks as checks_module
from ringrl.data.checks import check_store
from ringrl.data.joined import join_stores
from ringrl.data.statistics import store_statistics
from ringrl.types import ActionKind, ActionSpec

CONTINUOUS = ActionSpec(ActionKind.continuous, 2, (-0.1, -2.0), (0.1, 2.0))
DISCRETE = ActionSpec(ActionKind.discrete, 3)
LENGTHS = (3, 2, 4)


def write(path, action=CONTINUOUS, **metadata):
    with EpisodeStoreWriter(path, 2, action, source="a test", metadata=metadata) as writer:
        for index, length in enumerate(LENGTHS):
            actions = np.arange(length) % 3 if action is DISCRETE else np.full((length, 2), 0.1)
            writer.append(
                np.arange(2.0 * length).reshape(length, 2),
                actions,
                np.arange(1.0, length + 1),
                terminated=index == 1,
                task_id=index % 2,
                policy=f"p{index}",
            )
        return writer.finish()


def set_value(path, field, where, value):
    """Change one number of a column's file, and nothing else."""
    column = np.lib.format.open_memmap(path / f"{field}.npy", mode="r+")
    column[where] = value
    column.flush()


def edit_metadata(path, **changes):
    metadata = json.loads((path / "metadata.json").read_text())
    (path / "metadata.json").write_text(json.dumps(metadata | changes))


@pytest.mark.parametrize("action", [CONTINUOUS, DISCRETE], ids=["continuous", "discrete"])
@pytest.mark.parametrize("chunk_steps", [1, 1 << 16])
def test_a_sound_store_has_no_fault(tmp_path, monkeypatch, action, chunk_steps):
    monkeypatch.setattr(checks_module, "CHUNK_STEPS", chunk_steps)
    store, seen = write(tmp_path / "store", action), []
    assert check_store(store, progress=lambda done, total: seen.append((done, total))) == []
    assert seen[-1] == (9, 9)
    assert check_store(str(store.path)) == check_store(join_stores([store, store]).keep_top(0.5)) == []


def without_fingerprint(violations):
    return [str(violation) for violation in violations if violation.field != "fingerprint"]


@pytest.mark.parametrize(
    ("field", "where", "value", "line"),
    [
        (
            "observations",
            (4, 1),
            np.nan,
            "episode 1, step 1, observations: holds nan in dimension 1, not a finite number",
        ),
        (
            "observations",
            (0, 0),
            -np.inf,
            "episode 0, step 0, observations: holds -inf in dimension 0, not a finite number",
        ),
        ("actions", (8, 0), 0.2, "episode 2, step 3, actions: holds 0.2 in dimension 0, out of its bounds"),
        ("actions", (3, 1), np.nan, "episode 1, step 0, actions: holds nan in dimension 1, out of its bounds"),
        ("rewards", 5, np.inf, "episode 2, step 0, rewards: holds inf, not a finite number"),
        ("returns_to_go", 6, 7.5, "episode 2, step 1, returns_to_go: is 7.5, the rewards from here on add up to 9"),
        ("returns_to_go", 6, np.nan, "episode 2, step 1, returns_to_go: is nan, the rewards from here on add up to 9"),
        ("returns", 1, 3.5, "episode 1, returns: is 3.5, its rewards add up to 3"),
        ("task_ids", 2, -1, "episode 2, task_ids: is -1, not in 0..2147483647"),
        ("policy_ids", 0, 3, "episode 0, policy_ids: is 3, not in 0..2"),
        ("starts", 1, 2, "episode 1, starts: is 2 where the episode before ends at 3: steps overlap"),
        ("starts", 0, 1, "episode 0, starts: is 1 where the episode before ends at 0: steps are left out"),
        ("lengths", 1, 0, "episode 1, lengths: is 0, an episode has at least 1 step"),
        ("lengths", 2, 3, "episode 2, lengths: ends at step 8 of the 9 in the columns"),
    ],
)
def test_a_changed_value_is_found(tmp_path, field, where, value, line):
    path = write(tmp_path / "store").path
    set_value(path, field, where, value)
    found = check_store(path)
    assert str(path / f"{field}.npy") + f", {line}" in without_fingerprint(found)
    assert found[-1].field == "fingerprint"  # which every change moves
    assert check_store(path, content=False) == found[:-1]
    assert all("\n" not in str(violation) for violation in found)
    if field not in ("starts", "lengths", "rewards"):  # from which other faults follow
        assert len(found) == 2


def test_values_that_are_possible_are_found_by_the_fingerprint(tmp_path):
    store = write(tmp_path / "store")
    set_value(store.path, "observations", (1, 1), 2.5)
    (found,) = check_store(store)
    assert str(found).startswith(f"{store.path / 'metadata.json'}, fingerprint: is {store.fingerprint}, of these")
    assert check_store(store, content=False) == []


def test_discrete_actions_out_of_range(tmp_path):
    store = write(tmp_path / "store", DISCRETE)
    set_value(store.path, "actions", 4, 3)
    assert without_fingerprint(check_store(store)) == [
        f"{store.path / 'actions.npy'}, episode 1, step 1, actions: holds 3, not one of 0..2"
    ]


def test_tasks_that_have_no_name(tmp_path):
    store = write(tmp_path / "store", task_names=["only"])
    assert [str(violation) for violation in check_store(store)] == [
        f"{store.path / 'task_ids.npy'}, episode 1, task_ids: is 1, not in 0..0"
    ]


def test_files_that_are_not_the_columns(tmp_path):
    path = write(tmp_path / "store").path
    (path / "rewards.npy").unlink()
    np.save(path / "actions.npy", np.zeros((9, 2), np.float64))
    np.save(path / "observations.npy", np.asfortranarray(np.zeros((9, 2), np.float32)))
    with (path / "returns.npy").open("r+b") as file:
        file.truncate(150)
    (path / "lengths.npy").write_bytes(b"x" * 200)
    np.save(path / "policy_ids.npy", np.array([object()] * 3), allow_pickle=True)
    found = {violation.field: violation for violation in check_store(path)}
    for field, what in {
        "rewards": "this column is missing. The store at",
        "actions": "holds (9, 2) float64 in 272 bytes where metadata.json says (9, 2) float32 in 200",
        "observations": "not a column of numbers (in Fortran order)",
        "returns": "holds (3,) float64 in 150 bytes",
        "lengths": "not a column of numbers (",
        "policy_ids": "holds (3,) object in ",
    }.items():
        assert str(found.pop(field)).startswith(f"{path / f'{field}.npy'}, {field}: {what}")
    assert found == {}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"format": "else"}, "metadata.json: not an EpisodeStore"),
        (
            {"fingerprint": "0" * 32},
            "metadata.json, fingerprint: is 00000000000000000000000000000000, of these columns",
        ),
        ({"policies": ["p0"]}, "policy_ids.npy, episode 1, policy_ids: is 1, not in 0..0"),
        ({"policies": None}, "metadata.json: fingerprint or policies is missing or wrong"),
        ({"columns": {}}, "metadata.json: 'observations' is missing or wrong"),
    ],
)
def test_changed_metadata(tmp_path, changes, line):
    path = write(tmp_path / "store").path
    edit_metadata(path, **changes)
    assert str(check_store(path)[0]).startswith(f"{path}/{line}")


def test_changed_spec(tmp_path):
    store = write(tmp_path / "store")
    spec = store.metadata["spec"]
    edit_metadata(store.path, spec=spec | {"max_episode_steps": 7})
    assert str(check_store(store)[0]) == (
        f"{store.path / 'metadata.json'}, max_episode_steps: is 7, the longest episode has 4 steps"
    )
    edit_metadata(store.path, spec=spec | {"observation_size": 3})
    assert "observations of (9, 2) <f4, where (9, 3) <f4 is expected," in str(check_store(store)[0])


def test_no_more_than_the_limit_and_one_an_episode(tmp_path):
    path = write(tmp_path / "store").path
    set_value(path, "observations", slice(None), np.nan)
    assert len(check_store(path, limit=2)) == 2
    found = [violation for violation in check_store(path) if violation.field == "observations"]
    assert [(violation.episode, violation.step) for violation in found] == [(0, 0), (1, 0), (2, 0)]
    assert len(check_store(tmp_path / "missing")) == 1


def test_what_is_in_a_store(tmp_path):
    store = write(tmp_path / "store", task_names=["run", "walk"])
    found = store_statistics(store)
    assert json.loads(json.dumps(found)) == found
    assert (found["episodes"], found["steps"], found["bytes"]) == (3, 9, store.step_bytes)
    assert found["returns"]["minimum"] == 3
    assert found["returns"]["median"] == 6
    assert found["returns"]["maximum"] == 10
    assert found["lengths"]["mean"] == 3
    assert found["terminated_share"] == pytest.approx(1 / 3)
    assert [(t["task_id"], t["name"], t["episodes"], t["steps"], t["best_return"]) for t in found["tasks"]] == [
        (0, "run", 2, 7, 10.0),
        (1, "walk", 1, 2, 3.0),
    ]
    assert found["policies"] == [{"name": f"p{k}", "episodes": 1, "mean_return": v} for k, v in enumerate([6, 3, 10])]
    for key, values in (("observations", store.observations), ("actions", store.actions)):
        expected = np.asarray(values, np.float64)
        np.testing.assert_array_equal(found[key]["minimum"], expected.min(0))
        np.testing.assert_array_equal(found[key]["maximum"], expected.max(0))
        np.testing.assert_allclose(found[key]["mean"], expected.mean(0), rtol=1e-12)
        np.testing.assert_allclose(found[key]["deviation"], expected.std(0), rtol=1e-12, atol=1e-12)
    assert found["rewards"]["share_not_zero"] == 1
    view = store_statistics(store.select(np.array([2, 1])))
    assert view["observations"]["maximum"] == [6, 7]
    assert view["bytes"] == store.step_bytes * 6 // 9
    assert store_statistics(write(tmp_path / "discrete", DISCRETE))["actions"] == {"counts": [4, 3, 2]}


def test_statistics_in_chunks_are_those_of_the_whole(make_store, monkeypatch):
    store = make_store(tasks=4, episodes=300, max_steps=12)
    found = store_statistics(store)
    real = type(store).iterate_steps
    monkeypatch.setattr(type(store), "iterate_steps", lambda self: real(self, 700))
    again = store_statistics(store)
    for key in ("minimum", "maximum", "mean", "deviation"):
        np.testing.assert_allclose(again["observations"][key], found["observations"][key], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found["observations"]["minimum"], np.asarray(store.observations).min(0))
