"""The replay buffer: what it keeps, replaces and samples."""

import numpy as np
import pytest

from ringrl.online import Replay, Transitions

pytestmark = pytest.mark.simulators


def steps(first: int, count: int) -> Transitions:
    """Steps numbered from `first` on, the number in every field."""
    numbers = np.arange(first, first + count, dtype=np.float64)
    return Transitions(
        observations=np.stack([numbers, -numbers], axis=1),
        actions=numbers[:, None],
        rewards=numbers,
        terminated=numbers % 2 == 0,
        next_observations=np.stack([numbers + 1, -numbers - 1], axis=1),
    )


def drawn(replay: Replay, count: int = 2000) -> set[int]:
    return set(replay.sample(np.random.default_rng(0), count).rewards.astype(int).tolist())


def test_the_last_steps_are_kept_in_place_of_the_oldest() -> None:
    replay = Replay(7, 2, 1)
    seen = 0
    for count in (3, 3, 3, 7, 1, 2):
        replay.add(steps(seen, count))
        seen += count
        assert len(replay) == min(seen, 7)
        assert drawn(replay) == set(range(max(0, seen - 7), seen))


def test_a_transition_stays_together_and_is_float32() -> None:
    replay = Replay(7, 2, 1)
    for first in range(0, 30, 3):
        replay.add(steps(first, 3))
    batch = replay.sample(np.random.default_rng(1), 4, 5)
    assert [column.shape for column in batch] == [(4, 5, 2), (4, 5, 1), (4, 5), (4, 5), (4, 5, 2)]
    assert all(column.dtype == np.float32 for column in batch)
    number = batch.rewards
    np.testing.assert_array_equal(batch.observations, np.stack([number, -number], axis=-1))
    np.testing.assert_array_equal(batch.actions[..., 0], number)
    np.testing.assert_array_equal(batch.terminated, number % 2 == 0)
    np.testing.assert_array_equal(batch.next_observations, np.stack([number + 1, -number - 1], axis=-1))


def test_draws_are_uniform_follow_the_generator_and_are_copies() -> None:
    replay = Replay(10, 2, 1)
    replay.add(steps(0, 10))
    counts = np.bincount(replay.sample(np.random.default_rng(0), 10_000).rewards.astype(int))
    assert counts.min() > 850
    assert counts.max() < 1150
    first, second = (replay.sample(np.random.default_rng(3), 50) for _ in range(2))
    np.testing.assert_array_equal(first.rewards, second.rewards)
    replay.add(steps(10, 10))
    np.testing.assert_array_equal(first.rewards, second.rewards)
    assert first.rewards.max() < 10


def test_more_than_the_ring_holds_at_once_is_refused() -> None:
    with pytest.raises(ValueError, match=r"8 steps at once are more than the replay's 7"):
        Replay(7, 2, 1).add(steps(0, 8))
