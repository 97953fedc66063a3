"""Environments of several processes: all processes get process 0's results, bit by bit."""

import gymnasium
import numpy as np
import pytest
import ringrl_envs
from jax.experimental import multihost_utils

from ringrl.errors import RingRLError
from ringrl.evaluation import lockstep
from ringrl.evaluation.rollout import rollout

COUNT, TASKS = 3, [0, 1, 2]


class Scripted:
    """A policy that draws its actions from a seed."""

    full = np.zeros(COUNT, bool)

    def reset(self, num_environments: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def act(self, observations: np.ndarray, active: np.ndarray) -> np.ndarray:
        return self.random.integers(5, size=COUNT)

    def observe(self, rewards: np.ndarray, finished: np.ndarray, active: np.ndarray) -> None:
        pass


class Drifting(gymnasium.vector.VectorWrapper):
    """The results of another machine: slightly different, and without successes."""

    def reset(self, **options):
        observations, infos = self.env.reset(**options)
        return observations + 1e-3, infos

    def step(self, actions):
        observations, rewards, terminated, truncated, _ = self.env.step(actions)
        return observations + 1e-3, rewards + 1e-12, ~terminated, ~truncated, {}


@pytest.fixture
def environments():
    made = ringrl_envs.make_vector("ringrl/DarkRoom-v0", COUNT, size=4, max_steps=6)
    yield made
    made.close()


def roll(environments):
    return rollout(environments, Scripted(), trials=2, task_ids=TASKS, seed=3)


def test_one_process_is_left_alone(environments) -> None:
    assert lockstep.synchronize_environments(environments) is environments


def test_all_processes_live_through_what_the_first_one_does(environments, monkeypatch) -> None:
    messages = []

    def record(message: np.ndarray) -> np.ndarray:
        assert message.dtype == np.uint8
        messages.append(message.copy())
        return messages[-1]

    monkeypatch.setattr(lockstep.jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda failed: np.stack([failed, failed]))
    expected = roll(environments)
    assert expected.trial_success is not None
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", record)
    first = roll(lockstep.synchronize_environments(environments))
    waiting = iter(messages)
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda message: next(waiting))
    second = roll(lockstep.synchronize_environments(Drifting(environments)))
    assert next(waiting, None) is None
    for found in (first, second):
        np.testing.assert_array_equal(found.trial_returns, expected.trial_returns)
        np.testing.assert_array_equal(found.trial_lengths, expected.trial_lengths)
        np.testing.assert_array_equal(found.trial_success, expected.trial_success)
    assert expected.trial_lengths.min() >= 1


def test_what_fails_in_one_process_fails_in_all(environments, monkeypatch) -> None:
    def broken(**_):
        raise RuntimeError("broken here")

    monkeypatch.setattr(multihost_utils, "process_allgather", lambda failed: np.stack([failed, 1 - failed]))
    together = lockstep.Lockstep(environments)
    with pytest.raises(RingRLError, match="failed in another process"):
        together.reset(seed=0)
    monkeypatch.setattr(environments, "reset", broken)
    with pytest.raises(RuntimeError, match="broken here"):
        together.reset(seed=0)


def test_answers_keep_every_bit_and_their_types(environments, monkeypatch) -> None:
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda message: message)
    sent = [np.array([1.0 + 2**-50]), np.array([True, False]), np.zeros((2, 0), np.float32), np.array([[3]], np.int32)]
    for array, received in zip(sent, lockstep._broadcast(*sent), strict=True):
        assert received.dtype == array.dtype
        np.testing.assert_array_equal(received, array)
        assert received.flags.writeable
