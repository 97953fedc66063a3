"""The vectorised form of any gymnasium environment: one after the other, restarted by the caller alone."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, iterate

from ringrl_envs.task_vector_env import reset_mask, seed_list
from ringrl_envs.tasks import TaskSplit, one_task


class DisabledSyncVectorEnv(SyncVectorEnv):
    """gymnasium's `SyncVectorEnv` with the same manners as `TaskVectorEnv`.

    Against the parent in its DISABLED mode: finished sub-environments may be stepped on (they stay as they are,
    with reward 0 and no new end), `reset` leaves the caller's options alone, and `task_id` is dealt out to the
    sub-environments that have tasks (those whose unwrapped environment has a `task_split`); others have task 0.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gymnasium.Env]]) -> None:
        super().__init__(env_fns, autoreset_mode=AutoresetMode.DISABLED)
        split = getattr(self.envs[0].unwrapped, "task_split", None)
        self._has_tasks = split is not None
        self.task_split: TaskSplit = one_task() if split is None else split
        self._name = self.envs[0].spec.id if self.envs[0].spec is not None else type(self.envs[0].unwrapped).__name__

    def reset(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ):
        """Start episodes in the masked sub-environments; observations (num_envs, O) of all.

        Raises:
            ValueError: a mask, seed or task list of the wrong length, or no such task.
        """
        options = dict(options or {})
        mask = reset_mask(self.num_envs, options)
        options.pop("reset_mask", None)
        seeds = seed_list(self.num_envs, seed)
        task_ids = self._task_ids(options)
        infos: dict[str, Any] = {}
        for i, env in enumerate(self.envs):
            if not mask[i]:
                continue
            own_options = options if task_ids is None else {**options, "task_id": task_ids[i]}
            self._env_obs[i], info = env.reset(seed=seeds[i], options=own_options or None)
            infos = self._add_info(infos, self._with_task(info), i)
        self._terminations[mask] = self._truncations[mask] = self._autoreset_envs[mask] = False
        return self._gathered(), infos

    def step(self, actions: Any):
        """One step of every unfinished sub-environment."""
        infos: dict[str, Any] = {}
        self._rewards[:] = 0.0
        self._terminations[:] = self._truncations[:] = False
        for i, action in enumerate(iterate(self.action_space, actions)):
            if self._autoreset_envs[i]:
                continue
            result = self.envs[i].step(action)
            self._env_obs[i], self._rewards[i], self._terminations[i], self._truncations[i], info = result
            infos = self._add_info(infos, self._with_task(info), i)
        self._autoreset_envs |= self._terminations | self._truncations
        return self._gathered(), self._rewards.copy(), self._terminations.copy(), self._truncations.copy(), infos

    def _task_ids(self, options: dict[str, Any]) -> list[Any] | None:
        """One id per sub-environment, or None when there is nothing to deal out; taken out of the options."""
        if "task_id" not in options:
            return None
        task_id = options.pop("task_id")
        if task_id is None:
            return [None] * self.num_envs if self._has_tasks else None
        ids = self.task_split.check(self._name, task_id)
        if ids.shape not in ((), (self.num_envs,)):
            raise ValueError(
                f"{self._name}: task_id has shape {ids.shape}: give one, or one for each of {self.num_envs}."
            )
        return np.broadcast_to(ids, self.num_envs).tolist() if self._has_tasks else None

    def _with_task(self, info: dict[str, Any]) -> dict[str, Any]:
        return info if self._has_tasks else {**info, "task_id": 0}

    def _gathered(self) -> Any:
        return deepcopy(concatenate(self.single_observation_space, self._env_obs, self._observations))
