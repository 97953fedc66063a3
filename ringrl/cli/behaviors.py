"""A trained RingRL agent as a behaviour that collects data."""

import numpy as np
from gymnasium.vector import VectorEnv

from ringrl.cli.acting import acting_config, load_agent
from ringrl.evaluation.config import EvaluationConfig
from ringrl.evaluation.policy import RecomputingPolicy
from ringrl.evaluation.rollout import check_vector_env
from ringrl.types import Context


class CheckpointBehavior:
    """Acts with an agent from a run folder; every episode begins with an empty history.

    Successive episodes of one environment are of different tasks, so nothing is carried from one to the next.
    """

    def __init__(self, checkpoint: str, environments: VectorEnv, seed: int) -> None:
        loaded = load_agent(checkpoint)
        check_vector_env(environments, loaded.agent.spec)
        # A chain's history never grows beyond one episode here; a shorter window stays as it was learnt.
        one_episode = loaded.agent.spec.max_episode_steps if loaded.agent.context is Context.chain else 0
        config = acting_config(
            EvaluationConfig(context_steps=one_episode),
            loaded.command,
            loaded.agent.spec,
            loaded.chain_steps,
            loaded.target_return,
        )
        self._policy = RecomputingPolicy(loaded.agent, loaded.parameters, loaded.normalization, config)
        self._policy.reset(environments.num_envs, seed)
        self._owned = np.zeros(environments.num_envs, bool)  # where an episode of its own is running

    def reset(self, mask: np.ndarray, rng: np.random.Generator) -> None:
        """Episodes begin where `mask` (B,) is True."""
        self._policy.history.clear(mask)
        self._owned |= mask

    def act(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Actions (B, A) or (B,) for raw observations (B, O)."""
        return self._policy.act(observations, self._owned)

    def observe(self, rewards: np.ndarray, finished: np.ndarray, mask: np.ndarray) -> None:
        """What its own actions, where `mask` is True, led to."""
        if mask.any():
            self._policy.observe(rewards, finished, mask)
        self._owned &= ~finished
