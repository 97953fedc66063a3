"""A store of episodes in memory: the same as one written episode by episode, and one clear line per fault."""

import dataclasses
import gc
import re
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from ringrl.data import ChainSampler, EpisodeStore, EpisodeStoreWriter, check_store, join_stores, make_loader
from ringrl.data.config import ChainConfig
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec

BOX = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float32)


def episodes(count: int = 6) -> list[dict]:
    random = np.random.default_rng(0)
    found = []
    for index in range(count):
        steps = 3 + index % 3
        found.append(
            {
                "observations": random.normal(size=(steps + index % 2, 3)),  # with the last one, or without
                "actions": random.uniform(-1, 1, (steps, 2)),
                "rewards": random.normal(size=steps),
                "terminated": index % 2 == 0,
                "task_id": index % 2,
                "policy": f"policy {index % 3}",
            }
        )
    return found


def test_it_is_what_the_writer_makes_of_them(tmp_path: Path) -> None:
    store = EpisodeStore.from_episodes(
        iter(episodes()), action_space=BOX, path=tmp_path / "kept", metadata={"environment": "Own-v0"}
    )
    action = ActionSpec(ActionKind.continuous, 2, (-2.0, -2.0), (2.0, 2.0))
    with EpisodeStoreWriter(tmp_path / "written", 3, action) as writer:
        for episode in episodes():
            writer.append(**episode)
        written = writer.finish()
    assert store.fingerprint == written.fingerprint
    np.testing.assert_array_equal(store.terminated, [True, False] * 3)
    assert store.metadata["environment"] == "Own-v0"
    assert EpisodeStore.open(tmp_path / "kept").fingerprint == written.fingerprint
    with pytest.raises(RingRLError, match="already exists"):
        EpisodeStore.from_episodes(episodes(), path=tmp_path / "kept")
    replaced = EpisodeStore.from_episodes(episodes(2), path=tmp_path / "kept", overwrite=True)
    assert replaced.num_episodes == 2


def test_objects_will_do_and_minaris_names() -> None:
    @dataclasses.dataclass
    class Own:
        observations: list
        actions: np.ndarray
        rewards: list
        terminations: np.ndarray
        infos: str = "ignored"

    own = Own([[0.0], [1.0], [2.0]], np.array([[0.5], [-0.5]]), [1.0, 2.0], np.array([False, True]))
    store = EpisodeStore.from_episodes([own])
    assert store.terminated.tolist() == [True]
    assert store.returns.tolist() == [3.0]
    assert store.spec.action == ActionSpec(ActionKind.continuous, 1, (-0.5,), (0.5,)), "bounds are what is seen"


def test_actions_are_stored_as_their_space_says() -> None:
    base = {"observations": np.zeros((2, 3)), "rewards": np.zeros(2)}
    shifted = gymnasium.spaces.Discrete(4, start=-1)
    store = EpisodeStore.from_episodes([{**base, "actions": np.array([-1, 2])}], action_space=shifted)
    assert store.actions[:].tolist() == [0, 3]
    assert store.spec.action == ActionSpec(ActionKind.discrete, 4, start=-1)
    matrix = gymnasium.spaces.Box(-1.0, 1.0, (2, 2), np.float32)
    store = EpisodeStore.from_episodes([{**base, "actions": np.ones((2, 2, 2))}], action_space=matrix)
    assert store.actions.shape == (2, 4)


def test_a_temporary_store_lives_as_long_as_it_is_used() -> None:
    store = EpisodeStore.from_episodes(episodes())
    folder = store.path.parent
    assert check_store(store) == []
    view = store.select(np.array([0, 2, 4]))
    joined = join_stores([view, view])
    del store, view
    gc.collect()
    assert folder.is_dir(), "a view of a view still reads it"
    sampler = ChainSampler(joined, ChainConfig(trajectories=2))
    with make_loader(sampler, batch_size=2, threads=0) as loader:
        assert next(loader).observations.shape == (2, sampler.steps, 3)
    del joined, sampler, loader
    gc.collect()
    assert not folder.exists()


def test_a_fault_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(RingRLError):
        EpisodeStore.from_episodes([*episodes(), {"observations": 1}])
    gc.collect()
    assert list(tmp_path.iterdir()) == []


GOOD = episodes(1)[0]


@pytest.mark.parametrize(
    ("faulty", "words"),
    [
        ([], "from_episodes: there are no episodes"),
        ([GOOD, {**GOOD, "reward": 1}], "episode 1: unknown field 'reward'; the fields are observations, actions,"),
        ([{"observations": GOOD["observations"]}], "episode 0 has no actions: give a dictionary or an object with"),
        ([GOOD, (1, 2, 3)], "episode 1 has no observations: give a dictionary or an object with .* not tuple"),
        ([{**GOOD, "observations": np.zeros((3, 2, 2))}], r"episode 0: observations have shape \(3, 2, 2\)"),
        ([{**GOOD, "observations": np.zeros(3)}], r"episode 0: observations have shape \(3,\)"),
        ([{**GOOD, "observations": [[1.0], [1.0, 2.0]]}], "episode 0: observations are no array of numbers"),
        ([GOOD, {**GOOD, "observations": np.zeros((3, 4))}], r"episode 1: observations have shape \(3, 4\), expected"),
        ([{**GOOD, "observations": np.zeros((5, 3))}], "episode 0: 5 observations, 3 actions and 3 rewards"),
        ([{**GOOD, "actions": np.zeros(3)}], r"episode 0: actions have shape \(3,\), expected \(steps, A\): reshape"),
        ([{**GOOD, "actions": np.zeros(3, int)}], r"say how many .* action_space=gymnasium.spaces.Discrete\(5\)"),
        ([{**GOOD, "rewards": [0.0, np.nan, 0.0]}], "episode 0, step 1: rewards holds nan"),
        ([{**GOOD, "rewards": 1.0}], "episode 0: rewards are float64 of shape"),
        ([{**GOOD, "rewards": []}], "episode 0: rewards have shape"),
        ([{**GOOD, "terminated": [True, False, True]}], "step 0: terminated before the last step: cut the episode"),
        ([{**GOOD, "truncated": [False, True]}], "episode 0: truncated are bool of shape .* one bool, or one a step"),
        ([{**GOOD, "terminated": "yes"}], "episode 0: terminated are <U3"),
        ([{**GOOD, "task_id": "north"}], "episode 0: task_id='north': number the tasks from 0"),
        ([{**GOOD, "task_id": -1}], "episode 0: task_id=-1 is not in"),
    ],
)
def test_each_fault_is_one_line(faulty: list, words: str) -> None:
    with pytest.raises(RingRLError) as raised:
        EpisodeStore.from_episodes(faulty)
    assert re.search(words, str(raised.value)), raised.value
    assert "\n" not in str(raised.value)


def test_actions_out_of_the_space_are_refused() -> None:
    with pytest.raises(RingRLError, match="episode 0, step 0: action 3 in dimension 0 is outside its bounds"):
        EpisodeStore.from_episodes([{**GOOD, "actions": np.full((3, 2), 3.0)}], action_space=BOX)
    with pytest.raises(RingRLError, match=r"actions are not supported; use a Discrete or a Box space"):
        EpisodeStore.from_episodes([GOOD], action_space=gymnasium.spaces.MultiBinary(2))
