"""A policy in a plain gymnasium loop: calls passed to the policy of a batch, and rejected arguments."""

from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest

from ringrl.errors import RingRLError
from ringrl.evaluation.actions import recorded_space
from ringrl.evaluation.gymnasium_policy import Policy
from ringrl.types import ActionKind, ActionSpec, DataSpec

CHOICES = ActionSpec(ActionKind.discrete, 4, start=3)
VECTORS = ActionSpec(ActionKind.continuous, 2, (-1.0, 0.0), (1.0, 0.5))


class Told:
    """A stand-in for the policy of a batch with given answers, which stores its arguments."""

    def __init__(self, action: ActionSpec, answer: Any) -> None:
        self.agent = SimpleNamespace(spec=DataSpec(3, action, 9))
        self.answer = np.asarray(answer)
        self.calls: list[tuple[Any, ...]] = []
        self.full = np.zeros(2, bool)

    def reset(self, num_environments: int, seed: int) -> None:
        self.calls.append(("reset", num_environments, seed))

    def act(self, observations: np.ndarray, active: np.ndarray) -> np.ndarray:
        self.calls.append(("act", observations.tolist(), active.tolist()))
        return self.answer[: len(observations)]

    def observe(self, rewards: np.ndarray, finished: np.ndarray, active: np.ndarray) -> None:
        self.calls.append(("observe", rewards.tolist(), finished.tolist(), active.tolist()))


def policy_of(action: ActionSpec, answer: Any, space: gymnasium.Space | None = None) -> tuple[Policy, Told]:
    told = Told(action, answer)
    return Policy(told, recorded_space(action) if space is None else space), told  # type: ignore[arg-type]


def test_one_environment() -> None:
    policy, told = policy_of(CHOICES, [1])
    policy.reset(seed=5)
    assert policy.full is False
    action = policy.act(np.array([1.0, 2.0, 3.0]))
    assert (action, np.ndim(action)) == (1 + 3, 0), "the environment's number of choice 1"
    policy.observe(0.5, False)
    policy.act([4, 5, 6])
    policy.observe(np.float32(1.0), np.True_)
    policy.act(np.array([7.0, 8.0, 9.0]))  # the next trial, in the same context
    assert told.calls == [
        ("reset", 1, 5),
        ("act", [[1.0, 2.0, 3.0]], [True]),
        ("observe", [0.5], [False], [True]),
        ("act", [[4, 5, 6]], [True]),
        ("observe", [1.0], [True], [True]),
        ("act", [[7.0, 8.0, 9.0]], [True]),
    ]
    policy.reset()
    policy.act(np.zeros(3))
    assert told.calls[-2] == ("reset", 1, 0), "an unobserved action is forgotten too"


def test_a_vector_of_environments_of_which_some_wait() -> None:
    policy, told = policy_of(CHOICES, [1, 2])
    observations = np.array([[1.0, 1.0, 1.0], [np.nan, 0.0, 0.0]])
    actions = policy.act(observations, active=np.array([True, False]))
    assert actions.tolist() == [4, 3]
    policy.observe(np.array([1.0, np.nan]), np.array([False, True]))
    assert told.calls[-1] == ("observe", [1.0, 0.0], [False, False], [True, False])
    told.full[1] = True
    assert policy.full.tolist() == [False, True]


def test_actions_are_those_of_the_space() -> None:
    policy, _ = policy_of(VECTORS, [[1.5, 0.25]])
    action = policy.act(np.zeros(3))
    assert action.tolist() == [1.0, 0.25], "within the bounds of the data"
    assert action.dtype == np.float32
    assert policy.action_space.contains(action)
    whole = gymnasium.spaces.Box(-5, 5, (2, 1), np.int64)
    policy, _ = policy_of(VECTORS, [[1.6, 7.0]], whole)
    action = policy.act(np.zeros(3))
    assert action.tolist() == [[2], [5]]
    assert whole.contains(action)


def test_another_action_space_is_refused() -> None:
    with pytest.raises(RingRLError, match="takes discrete actions of size 5, but the policy was trained on discrete"):
        policy_of(CHOICES, [1], gymnasium.spaces.Discrete(5))
    with pytest.raises(RingRLError, match="only Box and Discrete"):
        policy_of(CHOICES, [1], gymnasium.spaces.MultiBinary(2))


@pytest.mark.parametrize(
    ("slip", "words"),
    [
        (lambda policy: policy.observe(1.0, False), "observe without an action"),
        (lambda policy: (policy.act(np.zeros(3)), policy.act(np.zeros(3))), "act twice in a row"),
        (lambda policy: policy.act(np.zeros(2)), r"shape \(2,\) .* trained on \(3,\): ringrl_envs.make"),
        (lambda policy: policy.act({"observation": 1}), r"shape \(\) .* ringrl_envs.make"),
        (lambda policy: policy.act(np.array([0.0, np.inf, 0.0])), "the observation is not finite"),
        (lambda policy: policy.act(np.zeros((2, 3)), active=[True]), r"active of shape \(1,\) for 2 environments"),
        (lambda policy: (policy.act(np.zeros(3)), policy.observe(np.nan, False)), "the reward is not finite"),
        (lambda policy: (policy.act(np.zeros(3)), policy.observe([1.0, 2.0], False)), "for 1 environments: give one"),
        (
            lambda policy: (policy.act(np.zeros((2, 3))), policy.observe([0, 0], [0, 0]), policy.act(np.zeros(3))),
            "1 environments, and 2 before: call reset",
        ),
    ],
)
def test_slips_are_one_line(slip: Any, words: str) -> None:
    policy, _ = policy_of(CHOICES, [1, 2])
    with pytest.raises(RingRLError, match=words):
        slip(policy)


def test_an_agent_that_has_diverged_is_named() -> None:
    policy, _ = policy_of(VECTORS, [[np.nan, 0.0]])
    with pytest.raises(RingRLError, match="the agent has diverged"):
        policy.act(np.zeros(3))
