"""From collecting to evaluating, in environments of any kind; what cannot be learned from is refused at once."""

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ringrl.cli import collect
from ringrl.cli.environments import vector_environment
from ringrl.config import BehaviorConfig, BehaviorKind, CollectCommand, EnvConfig
from ringrl.data import open_dataset
from ringrl.data.config import DataConfig
from ringrl.errors import RingRLError
from ringrl.evaluation.rollout import rollout
from ringrl.types import ActionKind, ActionSpec

VECTOR = spaces.Box(-9, 9, (2,), np.float32)
DOUBLE = spaces.Box(-np.inf, np.inf, (2,), np.float64)
MIXED = spaces.Dict({"map": spaces.MultiDiscrete([2, 3]), "bag": spaces.Tuple([spaces.MultiBinary(2), VECTOR])})
WHOLE = ActionSpec(ActionKind.continuous, 2, (0.0, 0.0), (7.0, 7.0))
SQUARE = ActionSpec(ActionKind.continuous, 2, (-1.0, -1.0), (1.0, 1.0))

# By name: how an environment differs from actions Discrete(3), observations VECTOR and rewards of 1.
SUPPORTED: dict[str, tuple[dict[str, Any], ActionSpec, int]] = {
    "start": ({"action": spaces.Discrete(3, start=5)}, ActionSpec(ActionKind.discrete, 3, start=5), 2),
    "below": ({"action": spaces.Discrete(2, start=-3)}, ActionSpec(ActionKind.discrete, 2, start=-3), 2),
    "whole": ({"action": spaces.Box(0, 7, (2,), np.int64)}, WHOLE, 2),
    "grid": ({"action": spaces.Box(-1, 1, (2, 1)), "observation": spaces.Box(0, 255, (2, 2), np.uint8)}, SQUARE, 4),
    "mixed": ({"observation": MIXED}, ActionSpec(ActionKind.discrete, 3), 9),
    "numbers": (
        {"observation": spaces.Discrete(5, start=2), "action": spaces.Box(-2, 2, ())},
        ActionSpec(ActionKind.continuous, 1, (-2.0,), (2.0,)),
        5,
    ),
    "arrays": ({"reward": np.ones(1, np.float32)}, ActionSpec(ActionKind.discrete, 3), 2),
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "choices": ({"action": spaces.MultiDiscrete([2, 2])}, "only Box and Discrete are supported"),
    "bits": ({"action": spaces.MultiBinary(2)}, "only Box and Discrete are supported"),
    "parts": ({"action": spaces.Dict({"a": spaces.Discrete(2)})}, "only Box and Discrete are supported"),
    "lists": ({"observation": spaces.Sequence(spaces.Discrete(2))}, "have no fixed size"),
    "far": ({"observation": DOUBLE, "value": 1e39}, "the observation after step 0 of an episode is not finite"),
    "missing": ({"observation": DOUBLE, "value": np.nan}, "the observation after step 0 of an episode is not finite"),
    "rich": ({"reward": 1e39}, "the reward after step 0 of an episode is not finite in float32"),
    "unpaid": ({"reward": float("nan")}, "the reward after step 0 of an episode is not finite in float32"),
    "richer": ({"reward": 2e38}, "the rewards of an episode add up beyond float32"),
    "several": ({"reward": np.ones(2)}, "which is not one number"),
}
OTHERS: dict[str, dict[str, Any]] = {
    "endless": {"ends": False},
    "at least": {"action": spaces.Box(2, np.inf, (3,))},
    "at most": {"action": spaces.Box(-np.inf, -2, (3,))},
}
KINDS = {name: case[0] for name, case in {**SUPPORTED, **REFUSED}.items()} | OTHERS


class Anything(gymnasium.Env):
    """Episodes of 4 steps, unless they never end, in which an action must be one of the space."""

    def __init__(self, kind: str) -> None:
        given = KINDS[kind]
        self.action_space = given.get("action", spaces.Discrete(3))
        self.observation_space = given.get("observation", VECTOR)
        self.value, self.reward, self.ends = given.get("value", 1.0), given.get("reward", 1.0), given.get("ends", True)
        self.steps = 0

    def observe(self):
        if isinstance(self.observation_space, spaces.Box):
            values = np.full(self.observation_space.shape, float(self.steps))
            return (values * self.value if self.steps else values).astype(self.observation_space.dtype)
        return self.observation_space.sample()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observe(), {"success": None, "told": np.zeros(self.np_random.integers(3))}

    def step(self, action):
        assert action in self.action_space, f"{action} is none of {self.action_space}"
        self.steps += 1
        said = {"success": np.array([self.steps == 4]), "told": None if self.steps % 2 else "word"}
        return self.observe(), self.reward, self.ends and self.steps == 4, False, said


@pytest.fixture(autouse=True)
def registered():
    """Anything-v0, without a time limit."""
    gymnasium.register("tests/Anything-v0", f"{__name__}:Anything")
    yield
    del gymnasium.registry["tests/Anything-v0"]


def name_of(kind: str) -> str:
    return f"tests/{kind.replace(' ', '_')}-v0"


def collected(folder: Path, kind: str, *, behavior=BehaviorKind.random, checkpoint="", steps=None, **options) -> Path:
    """The set of 6 episodes of that kind."""
    limit = {} if steps is None else {"max_episode_steps": steps}
    command = CollectCommand(
        dataset=name_of(kind),
        env=EnvConfig("tests/Anything-v0", {"kind": kind, **limit}),
        behavior={"one": BehaviorConfig(behavior, checkpoint=checkpoint)},
        num_environments=2,
        episodes_per_task=6,
        overwrite=True,
        **{"reference_episodes": 0, **options},
    )
    collect.run(command, folder)
    return folder


def refused(folder: Path, kind: str, **options) -> str:
    with pytest.raises(RingRLError) as caught:
        collected(folder, kind, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", SUPPORTED)
def test_what_is_collected_is_read(tmp_path: Path, kind: str) -> None:
    _, spec, size = SUPPORTED[kind]
    collected(tmp_path, kind)
    store = open_dataset(DataConfig(name=name_of(kind)))
    assert store.spec.action == spec
    assert store.spec.observation_size == size
    assert store.lengths.tolist() == [4] * 6
    assert store.returns.tolist() == [4.0] * 6
    if spec.kind is ActionKind.discrete:
        assert set(store.actions.tolist()) == set(range(spec.size))


class Fixed:
    """A policy that takes the actions it is given, in turn."""

    full = np.zeros(2, bool)

    def __init__(self, *actions) -> None:
        self.actions, self.step = actions, 0

    def reset(self, num_environments: int, seed: int) -> None:
        self.step = 0

    def act(self, observations: np.ndarray, active: np.ndarray) -> np.ndarray:
        self.step += 1
        return np.stack([self.actions[self.step % len(self.actions)]] * len(active))

    def observe(self, rewards: np.ndarray, finished: np.ndarray, active: np.ndarray) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "actions"),
    [
        ("start", (0, 1, 2)),
        ("below", (0, 1)),
        ("whole", (np.array([0.4, 6.6]), np.array([-3.0, 9.0]))),
        ("grid", (np.array([0.5, -2.0]),)),
        ("numbers", (np.array([0.5]),)),
        ("at least", (np.zeros(3),)),
    ],
)
def test_an_agents_actions_are_those_of_the_environment(kind: str, actions: tuple) -> None:
    with vector_environment(EnvConfig("tests/Anything-v0", {"kind": kind}), 2) as environments:
        found = rollout(environments, Fixed(*actions), trials=2, task_ids=[0, 0], seed=0)
    assert found.trial_returns.tolist() == [[4.0, 4.0]] * 2
    assert found.trial_success is not None
    assert found.trial_success.tolist() == [[1.0, 1.0]] * 2


@pytest.mark.simulators
@pytest.mark.parametrize("kind", ["start", "whole"])
def test_what_is_collected_is_trained_on_and_acted_in(ringrl, tmp_path: Path, kind: str) -> None:
    collected(tmp_path, kind)
    small = ("model.layers=1", "model.width=8", "model.heads=1", "training.batch_size=2", "training.steps=1")
    acting = ("evaluation.trials=2", "evaluation.environments=2", "evaluation.bootstrap_samples=40")
    outcome = ringrl(
        *("train", "data=minari", f"data.name={name_of(kind)}", "chain.trajectories=2", "name=any", *small, *acting)
    )
    assert outcome.code == 0, outcome.err
    [run] = (tmp_path / "runs" / "train" / "any").iterdir()
    assert json.loads((run / "summary.json").read_text())["trial_returns"] == [4.0, 4.0]
    again = collected(tmp_path / "again", kind, behavior=BehaviorKind.checkpoint, checkpoint=str(run))
    assert json.loads((again / "summary.json").read_text())["mean_return"] == 4.0
    outcome = ringrl("eval", f"checkpoint={run}", *acting)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(("kind", "low", "high"), [("at least", 2.0, np.inf), ("at most", -np.inf, -2.0)])
def test_bounds_on_one_side(tmp_path: Path, kind: str, low: float, high: float) -> None:
    collected(tmp_path, kind)
    store = open_dataset(DataConfig(name=name_of(kind)))
    assert (store.actions >= low).all()
    assert (store.actions <= high).all()
    assert np.isfinite([store.spec.action.low, store.spec.action.high]).all()
    assert len(np.unique(store.actions)) == store.actions.size
    collected(tmp_path, kind, behavior=BehaviorKind.ou)
    assert "have no finite bounds" in refused(tmp_path, kind, behavior=BehaviorKind.sac, reference_episodes=10**9)


def test_an_episode_that_does_not_end_stops_the_command(tmp_path: Path, data_cache: Path, capsys) -> None:
    for references in (0, 2):
        said = refused(tmp_path, "endless", longest_episode=50, reference_episodes=references)
        assert "an episode still runs after 50 steps" in said
        assert "env.kwargs.max_episode_steps=N" in said
    assert not (data_cache / "minari" / name_of("endless")).exists()
    assert "no time limit" in capsys.readouterr().out
    collected(tmp_path, "endless", longest_episode=5, steps=7)
    assert "no time limit" not in capsys.readouterr().out
    assert open_dataset(DataConfig(name=name_of("endless"))).lengths.tolist() == [7] * 6


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_set_can_hold_is_refused(tmp_path: Path, data_cache: Path, kind: str) -> None:
    assert REFUSED[kind][1] in refused(tmp_path, kind)
    assert not (data_cache / "minari" / name_of(kind)).exists()
