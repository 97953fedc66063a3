"""Stores and chains of noise, where only sizes matter."""

from pathlib import Path

import numpy as np

from ringrl.data import EpisodeStoreWriter
from ringrl.types import ActionKind, ActionSpec, Chain


def write_random_store(
    path: Path,
    *,
    episodes: int,
    episode_steps: int,
    observation_size: int,
    action_size: int,
    tasks: int = 1,
    distinct: bool = True,
) -> None:
    """Writes a store of random episodes, dealt to `tasks` tasks in turn.

    Args:
      distinct: draw every episode; else all have the same steps but for the first observation, which is the episode's
        number, and the size of the rewards: much faster to write.
    """
    generator = np.random.default_rng(0)
    bounds = (-1.0,) * action_size, (1.0,) * action_size

    def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        observations = generator.normal(size=(episode_steps, observation_size)).astype(np.float32)
        actions = generator.uniform(-1, 1, (episode_steps, action_size)).astype(np.float32)
        return observations, actions, generator.random(episode_steps)

    observations, actions, rewards = draw()
    with EpisodeStoreWriter(path, observation_size, ActionSpec(ActionKind.continuous, action_size, *bounds)) as writer:
        for episode in range(episodes):
            if distinct:
                observations, actions, rewards = draw()
            else:
                observations[0, 0] = episode
            scale = 1.0 if distinct else generator.random()
            writer.append(observations, actions, rewards * scale, task_id=episode % tasks)
        writer.finish()


def make_random_chain(chains: int, steps: int, observation_size: int, action_size: int, episode_steps: int) -> Chain:
    """A batch of chains (B, P) of random trajectories end to end, each of `episode_steps` steps."""
    generator, shape = np.random.default_rng(0), (chains, steps)

    def draw(*sizes: int) -> np.ndarray:
        return generator.standard_normal((*shape, *sizes), np.float32)

    order = np.broadcast_to(np.arange(steps, dtype=np.int32), shape).copy()
    actions = np.tanh(draw(action_size))
    return Chain(
        observations=draw(observation_size),
        actions=actions,
        rewards=draw(),
        return_to_go=draw(),
        completion=(order % episode_steps == episode_steps - 1).astype(np.float32),
        previous_actions=np.roll(actions, 1, axis=1),
        previous_rewards=draw(),
        previous_completion=(order % episode_steps == 0).astype(np.float32),
        previous_mask=(order > 0).astype(np.float32),
        timesteps=order % episode_steps,
        trajectories=order // episode_steps,
        positions=order,
        segment_ids=np.zeros_like(order),
        loss_mask=np.ones(shape, np.float32),
    )
