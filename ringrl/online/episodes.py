"""Recording of online episodes: the steps of every sub-environment, returned when an episode ends."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv


@dataclasses.dataclass(frozen=True, eq=False)
class OnlineEpisode:
    """One whole episode of T steps, collected while learning."""

    observations: np.ndarray  # (T + 1, O) float32
    actions: np.ndarray  # (T, A) float32, in the environment's bounds
    rewards: np.ndarray  # (T,) float32, from the environment
    terminated: bool
    truncated: bool
    policy: str  # "random", or the policy at its start: "sac(step=12000)", "rnd(step=12000)"
    seed: int  # seed of the environment's reset
    task_id: int
    physics: np.ndarray | None  # (T + 1, D) float64, if the environment has `physics_state()`


@dataclasses.dataclass(eq=False)
class _OpenEpisode:
    """An episode in progress."""

    observations: list[np.ndarray]
    physics: list[np.ndarray]
    policy: str
    seed: int
    task_id: int
    actions: list[np.ndarray] = dataclasses.field(default_factory=list)
    rewards: list[float] = dataclasses.field(default_factory=list)
    uniform: bool = True  # whether all actions so far were random


class EpisodeRecorder:
    """Stores the steps of the episodes in progress in the B sub-environments."""

    def __init__(self, vector_env: "VectorEnv") -> None:
        unwrapped = [env.unwrapped for env in getattr(vector_env, "envs", ())]
        self._states = [getattr(env, "physics_state", None) for env in unwrapped] or [None] * vector_env.num_envs
        self._running: list[_OpenEpisode | None] = [None] * vector_env.num_envs

    def begin(self, index: int, observation: np.ndarray, *, policy: str, seed: int, task_id: int) -> None:
        """Begin an episode of sub-environment `index`, which was just reset to `observation` (O,)."""
        first = [np.array(observation, np.float32)]
        self._running[index] = _OpenEpisode(first, self._physics(index), policy, seed, task_id)

    def step(
        self,
        actions: np.ndarray,
        observations: np.ndarray,
        rewards: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        *,
        uniform: bool,
    ) -> list[OnlineEpisode]:
        """Add a step of every sub-environment, (B, ...) each; returns the episodes that it ended.

        `uniform` marks random actions; an episode of only such actions is labeled "random".
        """
        done = []
        for index, running in enumerate(self._running):
            assert running is not None, "every sub-environment has begun"
            running.observations.append(np.array(observations[index], np.float32))
            running.actions.append(actions[index])
            running.rewards.append(float(rewards[index]))
            running.uniform &= uniform
            running.physics += self._physics(index)
            if terminated[index] or truncated[index]:
                done.append(_finished(running, bool(terminated[index]), bool(truncated[index])))
        return done

    def _physics(self, index: int) -> list[np.ndarray]:
        state = self._states[index]
        return [] if state is None else [np.array(state(), np.float64)]


def _finished(running: _OpenEpisode, terminated: bool, truncated: bool) -> OnlineEpisode:
    return OnlineEpisode(
        observations=np.stack(running.observations),
        actions=np.stack(running.actions),
        rewards=np.array(running.rewards, np.float32),
        terminated=terminated,
        truncated=truncated,
        policy="random" if running.uniform else running.policy,
        seed=running.seed,
        task_id=running.task_id,
        physics=np.stack(running.physics) if running.physics else None,
    )
