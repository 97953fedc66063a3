"""Scales of a data set, measured once and stored with the run."""

import numpy as np

from ringrl.data.store import EpisodeStore
from ringrl.types import Normalization

MINIMUM_STD = 1e-3


def fit_normalization(store: EpisodeStore, normalize_observations: bool = True) -> Normalization:
    """Scales that bring observations to mean 0 and deviation 1, and rewards and returns to order 1.

    Observation dimensions whose deviation is below 1e-3 are only centred. `reward_scale` is the root mean square of the
    rewards that are not zero (so that rare rewards count as much as dense ones), `return_scale` the largest absolute
    return; each is 1 where there is no such reward or return. One pass over the steps, in bounded memory.
    """
    size = store.spec.observation_size
    total, total_squared, rewards_squared = np.zeros(size), np.zeros(size), 0.0
    origin, steps, rewarded = store.observations[store.starts[0]].astype(np.float64), 0, 0
    for indices in store.iterate_steps():
        # Around a point of the data, so that the difference of large squares does not cancel.
        centred = store.observations[indices] - origin
        total += centred.sum(axis=0)
        total_squared += np.square(centred).sum(axis=0)
        rewards = store.rewards[indices].astype(np.float64)
        rewards_squared += float(np.square(rewards).sum())
        rewarded += np.count_nonzero(rewards)
        steps += len(indices)
        store.release()
    mean = total / steps
    std = np.sqrt(np.maximum(total_squared / steps - np.square(mean), 0.0))
    mean, std = mean + origin, np.where(std < MINIMUM_STD, 1.0, std)
    if not normalize_observations:
        mean, std = np.zeros(size), np.ones(size)
    largest_return = float(np.abs(store.returns).max())
    return Normalization(
        observation_mean=mean.astype(np.float32),
        observation_std=std.astype(np.float32),
        reward_scale=float(np.sqrt(rewards_squared / rewarded)) if rewarded else 1.0,
        return_scale=largest_return if largest_return > 0 else 1.0,
    )
