"""Batches of random numbers in the form of chains."""

import numpy as np

from ringrl.types import Chain


def make_random_chain(
    generator: np.random.Generator, segments: np.ndarray, loss_mask: np.ndarray, observations: int, actions: int
) -> Chain:
    """Chains of trajectories of four steps with standard normal observations, rewards and returns.

    Args:
        generator: of the numbers.
        segments: (B, P) int32, -1 for padding.
        loss_mask: (B, P).
        observations: O.
        actions: A, each within (-1, 1).
    """

    def draw(*sizes: int) -> np.ndarray:
        return generator.normal(size=(*segments.shape, *sizes)).astype(np.float32)

    order = np.broadcast_to(np.arange(segments.shape[1], dtype=np.int32), segments.shape)
    return Chain(
        observations=draw(observations),
        actions=np.tanh(draw(actions)),
        rewards=draw(),
        return_to_go=draw(),
        completion=(order % 4 == 3).astype(np.float32),
        previous_actions=np.tanh(draw(actions)),
        previous_rewards=draw(),
        previous_completion=(order % 4 == 0).astype(np.float32),
        previous_mask=(order > 0).astype(np.float32),
        timesteps=order % 4,
        trajectories=order // 4,
        positions=order,
        segment_ids=segments.astype(np.int32),
        loss_mask=loss_mask.astype(np.float32),
    )
