"""A policy for a plain gymnasium loop, over one environment or a vector of them."""

from typing import Any

import gymnasium
import numpy as np

from ringrl.errors import RingRLError
from ringrl.evaluation.actions import check_action_space, convert_actions
from ringrl.evaluation.policy import HistoryPolicy


class Policy:
    """A trained agent that acts in a gymnasium loop and learns in its context from observations and rewards.

    `reset(seed)` begins a context; each step is `action = act(observation)`, then `observe(reward, finished)`. A
    context spans trials: `finished` ends a trial, and the next one begins with the environment's own `reset`. One
    observation (O,) acts in one environment, observations (B, O) in a vector of B.

    Attributes:
        vector: the same policy in the form that `ringrl.rollout` takes.
        action_space: the space of the actions that `act` returns for one environment.
    """

    def __init__(self, vector: HistoryPolicy, action_space: gymnasium.Space) -> None:
        """Wrap a policy of a batch of environments.

        Args:
            vector: as `make_policy` makes it.
            action_space: a Box or Discrete space, of one environment.

        Raises:
            RingRLError: the space's actions differ from those the agent was trained on.
        """
        check_action_space("The environment", action_space, vector.agent.spec.action)
        self.vector, self.action_space = vector, action_space
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Clear the history and begin a new context.

        Args:
            seed: seed of sampled actions.
        """
        self._seed = seed
        self._active: np.ndarray | None = None  # (B,) of the last `act`, until the next `observe`
        self._single: bool | None = None
        self._environments = 0

    def act(self, observation: Any, active: np.ndarray | None = None) -> Any:
        """The next action.

        Args:
            observation: (O,) of one environment, or (B, O) of a vector of B, in the environment's units.
            active: (B,) bool, the environments of a vector that take a step; for the others nothing is recorded, and
                the action is zero or the nearest valid one. By default all.

        Returns:
            An action of `action_space`, or B of them, (B, ...).

        Raises:
            RingRLError: an observation of another size than the agent was trained on, of another number of
                environments than since `reset`, or not finite; an action that is not finite; or `observe` was left
                out.
        """
        rows = np.asarray(observation)
        single = rows.ndim == 1
        rows = rows[None] if single else rows
        active = np.ones(rows.shape[:1], bool) if active is None else np.asarray(active, bool)
        self._check(rows, active, single)
        if self._single is None:
            self.vector.reset(len(rows), self._seed)
            self._single, self._environments = single, len(rows)
        chosen = np.asarray(self.vector.act(rows, active))
        if not np.isfinite(chosen[active]).all():
            raise RingRLError("Policy.act: the action is not finite: the agent has diverged.")
        chosen, self._active = convert_actions(self.action_space, chosen, active), active
        return chosen[0] if single else chosen

    def observe(self, reward: Any, finished: Any) -> None:
        """Record the outcome of the last action.

        Args:
            reward: a number, or (B,) of a vector, in the environment's units.
            finished: whether the trial ended, terminated or truncated; a bool, or (B,) of a vector.

        Raises:
            RingRLError: `act` was not called before, the numbers are not one per environment, or a reward is not
                finite.
        """
        if self._active is None:
            raise RingRLError("Policy.observe without an action: call act(observation) before each observe.")
        rewards = np.atleast_1d(np.asarray(reward, np.float64))
        ended = np.atleast_1d(np.asarray(finished, bool))
        if rewards.shape != ended.shape or rewards.shape != (self._environments,):
            raise RingRLError(
                f"Policy.observe: reward of shape {np.shape(reward)} and finished of shape {np.shape(finished)} for "
                f"{self._environments} environments: give one of each."
            )
        if not np.isfinite(rewards[self._active]).all():
            raise RingRLError("Policy.observe: the reward is not finite: look for a fault in the environment.")
        self.vector.observe(np.where(self._active, rewards, 0.0), ended & self._active, self._active)
        self._active = None

    @property
    def full(self) -> Any:
        """Whether no further trial fits into the context, with `when_full=stop`; a bool, or (B,) of a vector."""
        if self._single is None:
            return False
        return bool(self.vector.full[0]) if self._single else self.vector.full

    def _check(self, rows: np.ndarray, active: np.ndarray, single: bool) -> None:
        size = self.vector.agent.spec.observation_size
        if rows.ndim != 2 or rows.shape[1] != size or rows.dtype.kind not in "biuf":
            shape = rows.shape[1:] if single else rows.shape
            raise RingRLError(
                f"Policy.act: an observation of shape {shape} and dtype {rows.dtype}, but the agent was trained on "
                f"({size},): ringrl_envs.make gives the environment's observations as such a vector."
            )
        if active.shape != (len(rows),):
            raise RingRLError(f"Policy.act: active of shape {active.shape} for {len(rows)} environments.")
        if self._active is not None:
            raise RingRLError("Policy.act twice in a row: call observe(reward, finished) after each step.")
        if self._single is not None and (single, len(rows)) != (self._single, self._environments):
            raise RingRLError(
                f"Policy.act: {len(rows)} environments, and {self._environments} before: call reset to act in others."
            )
        if not np.isfinite(rows[active]).all():
            raise RingRLError("Policy.act: the observation is not finite: look for a fault in the environment.")
