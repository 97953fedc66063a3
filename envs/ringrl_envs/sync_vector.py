"""The vectorized form of any gymnasium environment: one after the other, restarted by the caller alone."""

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate

from ringrl_envs.task_vector_env import reset_mask, seed_list
from ringrl_envs.tasks import TaskSplit, one_task


class EnvironmentFault(ValueError):
    """An environment has raised an exception, or returned what gymnasium does not permit; the message is one line."""


class DisabledSyncVectorEnv(SyncVectorEnv):
    """gymnasium's `SyncVectorEnv` with the same manners as `TaskVectorEnv`.

    Against the parent in its DISABLED mode: finished sub-environments may be stepped on (they stay as they are,
    with reward 0 and no new end), `reset` leaves the caller's options alone, and `task_id` is dealt out to the
    sub-environments that have tasks (those whose unwrapped environment has a `task_split`); others have task 0.
    Observations must be arrays (a Box each), and infos are gathered as the parent does: both at a fraction of its time.
    What infos hold never ends a step: values that do not go into one array are kept as objects. Rewards and ends may be
    arrays of one number. `EnvironmentFault` is raised for what gymnasium does not permit, and from what they raise.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gymnasium.Env]]) -> None:
        super().__init__(env_fns, autoreset_mode=AutoresetMode.DISABLED)
        if not isinstance(self.single_observation_space, spaces.Box):
            raise ValueError(
                f"{self.single_observation_space}: flatten observations first, as `ringrl_envs.make` does."
            )
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
            try:
                observation, info = env.reset(seed=seeds[i], options=own_options or None)
            except Exception as error:  # the environment's own code may raise anything
                raise self._fault("reset()", error) from error
            self._observe(i, observation)
            infos = self._add_info(infos, info or {}, i)
        self._autoreset_envs[mask] = False
        if mask.any():
            self._add_tasks(infos, mask.copy())
        return self._observations.copy(), infos

    def step(self, actions: Any):
        """One step of every unfinished sub-environment."""
        infos: dict[str, Any] = {}
        finished = self._autoreset_envs.tolist()
        rewards: list[Any] = [0.0] * self.num_envs
        terminations, truncations = [False] * self.num_envs, [False] * self.num_envs
        rows: Any = actions if isinstance(actions, np.ndarray) else iterate(self.action_space, actions)
        if isinstance(self.single_action_space, spaces.Box) and not self.single_action_space.shape:
            rows = [np.asarray(action) for action in rows]  # a row of one dimension has numbers, not arrays
        for i, (env, action) in enumerate(zip(self.envs, rows, strict=True)):
            if finished[i]:
                continue
            try:
                observation, reward, terminated, truncated, info = env.step(action)
            except Exception as error:
                raise self._fault("step()", error) from error
            self._observe(i, observation)
            rewards[i] = reward if type(reward) is float else self._one(reward, "reward", float)
            terminations[i] = terminated if type(terminated) is bool else self._one(terminated, "terminated", bool)
            truncations[i] = truncated if type(truncated) is bool else self._one(truncated, "truncated", bool)
            if info:
                self._add_info(infos, info, i)
        if not all(finished):
            self._add_tasks(infos, ~self._autoreset_envs)
        ends = np.array(terminations, bool), np.array(truncations, bool)
        self._autoreset_envs |= ends[0] | ends[1]
        return self._observations.copy(), np.array(rewards, np.float64), *ends, infos

    def _fault(self, what: str, error: Exception) -> EnvironmentFault:
        line = (str(error).splitlines() or [""])[0]
        return EnvironmentFault(f"{self._name}: its {what} raises {type(error).__name__}: {line}")

    def _observe(self, index: int, observation: Any) -> None:
        """Keep a sub-environment's observation; a number beyond float32 becomes infinite."""
        try:
            with np.errstate(over="ignore"):
                self._observations[index] = observation
        except (TypeError, ValueError) as error:
            raise EnvironmentFault(
                f"{self._name} returned an observation that is none of {self.single_observation_space} ({error})."
            ) from error

    def _one(self, value: Any, what: str, kind: type) -> Any:
        """The one number that an environment returned, also where it is in an array."""
        try:
            values = np.asarray(value)
            if kind is bool and values.dtype.kind not in "biuf":
                raise TypeError
            return kind(values.reshape(()).item())
        except (TypeError, ValueError):
            raise EnvironmentFault(f"{self._name} returned {what}={value!r}, which is not one number.") from None

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

    def _add_tasks(self, infos: dict[str, Any], told: np.ndarray) -> None:
        """Task 0 for those of `told`, where environments do not tell their task themselves."""
        if not self._has_tasks:
            infos["task_id"], infos["_task_id"] = np.zeros(self.num_envs, int), told

    def _add_info(self, vector_infos: dict[str, Any], env_info: dict[str, Any], env_num: int) -> dict[str, Any]:
        """As the parent's, which makes a new mask for every key of every environment before it looks for one."""
        for key, value in env_info.items():
            values, mask = vector_infos.get(key), vector_infos.get(f"_{key}")
            if not _is_mask(mask):
                mask = np.zeros(self.num_envs, bool)
            if isinstance(value, dict) and (values is None or isinstance(values, dict)):
                vector_infos[key] = self._add_info(values or {}, value, env_num)
            else:
                values = self._column(value, key) if values is None else values
                if not _fits(values, value):
                    values = _as_objects(values, mask)
                values[env_num] = value
                vector_infos[key] = values
            mask[env_num] = True
            vector_infos[f"_{key}"] = mask
        return vector_infos

    def _column(self, value: Any, key: str) -> np.ndarray:
        """Room for every environment's value, of the kind of the first."""
        if key != "final_obs" and (type(value) in (int, float, bool) or isinstance(value, np.number)):
            return np.zeros(self.num_envs, type(value))
        if key != "final_obs" and isinstance(value, np.ndarray):
            return np.zeros((self.num_envs, *value.shape), value.dtype)
        return np.full(self.num_envs, None, object)


def _is_mask(mask: Any) -> TypeGuard[np.ndarray]:
    return isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.ndim == 1


def _fits(values: Any, value: Any) -> bool:
    """Whether a column has room for `value` as it is."""
    if isinstance(values, dict):
        return False
    if isinstance(value, np.ndarray) and values.ndim > 1:
        return value.shape == values.shape[1:] and np.can_cast(value.dtype, values.dtype, "safe")
    if values.ndim > 1:
        return False
    kind = values.dtype.kind
    if kind == "O":
        return True
    if isinstance(value, float) and kind == "f":
        return True
    if type(value) is int and kind == "i":
        return -(1 << 63) <= value < 1 << 63
    if kind == "f":
        whole = isinstance(value, int | np.integer) and bool(abs(value) < 1 << 53)
        return isinstance(value, np.floating) or whole
    return isinstance(value, bool | np.number) and np.can_cast(np.asarray(value).dtype, values.dtype, "safe")


def _as_objects(values: Any, told: np.ndarray) -> np.ndarray:
    """The same values, an object for each environment; None for those that told nothing."""
    objects = np.full(len(told), None, object)
    for index in np.flatnonzero(told).tolist():
        objects[index] = _told_by(values, index) if isinstance(values, dict) else values[index]
    return objects


def _told_by(values: dict[str, Any], index: int) -> dict[str, Any]:
    """One environment's own dictionary, out of one of every environment's values."""
    return {
        key: _told_by(column, index) if isinstance(column, dict) else column[index]
        for key, column in values.items()
        if _is_mask(mask := values.get(f"_{key}")) and mask[index]
    }
