"""Any value in an environment's `info` is accepted by a step and passed on unchanged."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from ringrl_envs.sync_vector import DisabledSyncVectorEnv, EnvironmentFault


class Says(gymnasium.Env):
    """Returns one `info` at every step."""

    observation_space = spaces.Box(-9, 9, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, info=None, reward=1.0, terminated=False, observation=(1, 2)):
        self.answer = list(observation), reward, terminated, False, {} if info is None else info

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), self.answer[-1]

    def step(self, action):
        return self.answer


def stepped(*environments):
    vector = DisabledSyncVectorEnv([lambda env=env: env for env in environments])
    assert "task_id" in vector.reset()[1]
    return vector.step(np.zeros(len(environments), int))


A, B = np.arange(3), np.arange(4)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([None, 3], [None, 3]),
        ([3, None], [3, None]),
        ([3, 0.5], [3, 0.5]),
        ([True, 7], [True, 7]),
        ([1, "word"], [1, "word"]),
        ([0.5, 1 << 70], [0.5, 1 << 70]),
        ([1 << 70, 1], [1 << 70, 1]),
        ([A, B], [A, B]),
        ([A, 5], [A, 5]),
        ([5, A], [5, A]),
        ([A, A + 0.5], [A, A + 0.5]),
        ([np.array(["ab"]), np.array(["abcd"])], [np.array(["ab"]), np.array(["abcd"])]),
        ([np.zeros((2, 0)), object], [np.zeros((2, 0)), object]),
        ([{"deep": {"x": 1}}, 5], [{"deep": {"x": 1}}, 5]),
        ([5, {"x": 1}], [5, {"x": 1}]),
        ([[1, 2], (3,)], [[1, 2], (3,)]),
    ],
)
def test_values_of_several_kinds_are_kept_as_they_are(told, expected):
    *_, infos = stepped(*[Says({"thing": value}) for value in told])
    assert infos["_thing"].tolist() == [True, True]
    for found, value in zip(infos["thing"], expected, strict=True):
        assert type(found) is type(value) or np.isscalar(value)
        np.testing.assert_equal(found, value)


def test_dictionaries_of_several_kinds_and_what_only_one_tells():
    *_, infos = stepped(
        Says({"a": {"x": 1, "y": None}, "final_info": {"n": 1}}), Says({"a": {"x": A, "z": {}}}), Says({1: 2})
    )
    assert infos["_a"].tolist() == [True, True, False]
    assert infos["a"]["x"][0] == 1
    np.testing.assert_equal(infos["a"]["x"][1], A)
    assert infos["_final_info"].tolist() == [True, False, False]
    assert infos["_1"].tolist() == [False, False, True]


def test_rewards_and_ends_may_be_arrays_of_one_number():
    values = [np.array([2.5]), np.float32(2.5), np.array(2.5), [2.5], 2]
    _, rewards, terminated, _, _ = stepped(*[Says(reward=value, terminated=np.array([True])) for value in values])
    assert rewards.dtype == np.float64
    assert rewards.tolist() == [2.5, 2.5, 2.5, 2.5, 2.0]
    assert terminated.tolist() == [True] * 5


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"reward": np.zeros(2)}, "returned reward=.* which is not one number"),
        ({"reward": None}, "returned reward=None"),
        ({"terminated": "no"}, "returned terminated='no'"),
        ({"observation": (1, 2, 3)}, "returned an observation that is none of Box"),
    ],
)
def test_what_is_not_permitted_is_one_line(answer, said):
    with pytest.raises(EnvironmentFault, match=f"^Says {said}"):
        stepped(Says(**answer))
