"""The vectorized form of any environment: gymnasium's results, faster, with this package's conventions."""

import gymnasium
import numpy as np
import pytest
import ringrl_envs
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from ringrl_envs.sync_vector import DisabledSyncVectorEnv


class Talkative(gymnasium.Env):
    """Ends after 3 + number steps, and returns various `info` values, some of them only sometimes."""

    observation_space = spaces.Box(-9, 9, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, number=0):
        self.number, self.steps = number, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.full(2, self.number, np.float32), self.told()

    def step(self, action):
        self.steps += 1
        observation = np.array([self.steps, action[0]], np.float64)  # another type than the space's
        return observation, np.float32(self.steps), self.steps == 3 + self.number, False, self.told()

    def told(self):
        told = {
            "steps": self.steps,
            "half": self.steps / 2,
            "odd": self.steps % 2 == 1,
            "speed": np.float32(self.steps),
            "flag": np.bool_(True),
            "place": np.array([self.steps, self.number]),
            "word": f"step {self.steps}",
            "tasks": ["kettle"] * self.steps,
            "parts": {"left": self.steps, "deep": {"name": "x", "size": np.float64(self.number)}},
            "final_obs": np.zeros(2),
        }
        return told if (self.steps + self.number) % 2 else {key: told[key] for key in ("half", "parts")}


def equal(one, other):
    if isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in other)
    if other.dtype == object:
        return one.dtype == object and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    return one.dtype == other.dtype and np.array_equal(one, other)


def test_everything_is_as_gymnasiums_own_vector_gives_it():
    makes = [lambda number=number: Talkative(number) for number in range(3)]
    ours, theirs = DisabledSyncVectorEnv(makes), SyncVectorEnv(makes, autoreset_mode=AutoresetMode.DISABLED)
    found, expected = ours.reset(seed=0), theirs.reset(seed=0)
    for step in range(3):
        infos = dict(found[-1])
        assert infos.pop("task_id").tolist() == [0, 0, 0]
        assert infos.pop("_task_id").all()
        assert equal(infos, expected[-1])
        for one, other in zip(found[:-1], expected[:-1], strict=True):
            assert equal(one, other)
        actions = np.full((3, 1), step / 4, np.float32)
        found, expected = ours.step(actions), theirs.step(actions)
    assert found[2].tolist() == [True, False, False]


def test_what_is_finished_stays_and_tells_nothing():
    vector = DisabledSyncVectorEnv([lambda number=number: Talkative(number) for number in range(2)])
    vector.reset()
    for step in range(1, 6):
        observations, rewards, terminations, _, infos = vector.step(np.zeros((2, 1), np.float32))
        assert observations[:, 0].tolist() == [min(step, 3), min(step, 4)]
        assert rewards.tolist() == [step if step <= 3 else 0, step if step <= 4 else 0]
        assert terminations.tolist() == [step == 3, step == 4]
        if step <= 4:
            assert infos["_half"].tolist() == infos["_task_id"].tolist() == [step <= 3, True]
        else:
            assert infos == {}
    _, infos = vector.reset(options={"reset_mask": np.array([True, False])})
    assert infos["_task_id"].tolist() == infos["_half"].tolist() == [True, False]


def test_what_is_given_out_is_the_callers():
    vector = DisabledSyncVectorEnv([Talkative, Talkative])
    first, _ = vector.reset()
    results = vector.step(np.zeros((2, 1), np.float32))
    before = [values.copy() for values in results[:4]]
    first[:] = 7
    vector.step(np.ones((2, 1), np.float32))
    for values, kept in zip(results[:4], before, strict=True):
        np.testing.assert_array_equal(values, kept)


def test_environments_must_be_flat():
    class Room(Talkative):
        observation_space = spaces.Dict(place=spaces.Discrete(3))

    with pytest.raises(ValueError, match=r"flatten observations first, as `ringrl_envs\.make` does"):
        DisabledSyncVectorEnv([Room])


def test_a_vector_steps_as_single_environments_do():
    vector = ringrl_envs.make_vector("PointMaze_UMaze-v3", 2)
    singles = [ringrl_envs.make("PointMaze_UMaze-v3") for _ in range(2)]
    vector.action_space.seed(0)
    observations, _ = vector.reset(seed=5)
    np.testing.assert_array_equal(observations, [env.reset(seed=5 + i)[0] for i, env in enumerate(singles)])
    for _ in range(20):
        actions = vector.action_space.sample()
        observations, rewards, *_, infos = vector.step(actions)
        results = [env.step(action) for env, action in zip(singles, actions, strict=True)]
        np.testing.assert_array_equal(observations, [result[0] for result in results])
        assert rewards.tolist() == [result[1] for result in results]
        assert infos["success"].tolist() == [result[4]["success"] for result in results]
    vector.close()
