"""A saved actor as a behavior policy that collects data."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ringrl.errors import RingRLError
from ringrl.online.actor_files import load_actor
from ringrl.online.actors import Actor
from ringrl.online.spaces import read_spaces

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv


class ActorBehavior:
    """Acts with one actor; implements `ringrl_envs.Behaviour`.

    `noise` scales the learned deviation: 1 samples as in learning, 0 takes the mode. Raises RingRLError for a file that
    is not an actor, or an environment of different sizes or bounds.
    """

    def __init__(self, actor: Actor | str | Path, vector_env: "VectorEnv", noise: float = 1.0) -> None:
        self.actor = actor if isinstance(actor, Actor) else load_actor(actor)
        if not 0.0 <= noise < float("inf"):
            raise RingRLError(f"noise={noise} must be at least 0 and finite: 0 takes the mode, 1 samples as learned.")
        expected, here = self.actor.spaces, read_spaces(vector_env)
        if (expected.observation_size, expected.action_size) != (here.observation_size, here.action_size):
            raise RingRLError(
                f"{self.actor.label} learned {expected.environment} (observations {expected.observation_size}, actions "
                f"{expected.action_size}); {here.environment} has {here.observation_size} and {here.action_size}."
            )
        if not (np.array_equal(expected.low, here.low) and np.array_equal(expected.high, here.high)):
            raise RingRLError(
                f"{self.actor.label} learned {expected.environment} with actions in {expected.low}..{expected.high}; "
                f"those of {here.environment} are in {here.low}..{here.high}."
            )
        if _family(expected.environment) != _family(here.environment):
            raise RingRLError(
                f"{self.actor.label} learned {expected.environment}, this is {here.environment}: "
                "give actors that learned here."
            )
        self._noise, self._count = noise, vector_env.num_envs

    def reset(self, mask: np.ndarray, rng: np.random.Generator) -> None:
        """No effect: the actor has no memory."""

    def act(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Actions (B, A) float32 in the environment's bounds, for raw observations (B, O)."""
        return self.actor.spaces.to_environment(self.actor.act(observations, rng, self._noise))

    def labels(self) -> list[str]:
        """The actor's label B times, with any noise other than 1 added, such as "sac(step=12000, noise=0.5)"."""
        label = self.actor.label
        if self._noise != 1.0:
            label = f"{label.removesuffix(')')}{', ' if label.endswith(')') else '('}noise={self._noise:g})"
        return [label] * self._count


def _family(environment: str) -> str:
    """The common part of the names of an environment's versions and variants: Hopper of Hopper-v4."""
    return environment.rpartition(":")[2].partition("-v")[0].partition("_")[0]
