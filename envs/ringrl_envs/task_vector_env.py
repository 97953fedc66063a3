"""Base of the fast vectorized forms of the environments with tasks."""

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from ringrl_envs.task_env import check_common
from ringrl_envs.tasks import TaskSplit


class TaskVectorEnv(gymnasium.vector.VectorEnv):
    """`num_envs` copies of a `TaskEnv` advanced together in arrays, with the same trajectories.

    Nothing resets by itself: `reset(options={"reset_mask": (num_envs,) bool, "task_id": int or (num_envs,) ints})`
    restarts the chosen sub-environments (all without a mask); tasks stay until they are set again. A finished one
    may be stepped on: it stays as it is, with reward 0 and no new end. `seed` gives sub-environment i `seed + i`
    (or the i-th of a sequence), and there draws its task as the single form does.
    """

    name: ClassVar[str]
    metadata: dict[str, Any] = {  # noqa: RUF012 (gymnasium declares it so)
        "render_modes": ["rgb_array"],
        "render_fps": 10,
        "autoreset_mode": AutoresetMode.DISABLED,
    }

    def __init__(
        self,
        num_envs: int,
        task_split: TaskSplit,
        max_steps: int,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        render_mode: str | None = None,
    ) -> None:
        check_common(self.name, max_steps, render_mode, self.metadata["render_modes"])
        if num_envs < 1:
            raise ValueError(f"{self.name}: num_envs={num_envs} must be at least 1.")
        self.num_envs = num_envs
        self.task_split = task_split
        self.max_steps = max_steps
        self.render_mode = render_mode
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.task_id = np.full(num_envs, -1, np.int64)
        self.elapsed = np.zeros(num_envs, np.int64)
        self.finished = np.ones(num_envs, bool)
        self._task_is_set = np.zeros(num_envs, bool)

    def reset(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ):
        """Start episodes in the masked sub-environments; observations (num_envs, O) of all.

        Raises:
            ValueError: a mask, seed or task list of the wrong length, or no such task.
        """
        options = options or {}
        mask = reset_mask(self.num_envs, options)
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
        if "task_id" in options:
            self._set_tasks(mask, options["task_id"])
        self._draw_tasks(mask, seed)
        self.elapsed[mask] = 0
        self.finished[mask] = False
        self._start(mask)
        return self._observe(), self._infos(mask)

    def step(self, actions: np.ndarray):
        """One decision in every unfinished sub-environment."""
        active = ~self.finished
        rewards, terminations = self._advance(np.asarray(actions), active)
        self.elapsed[active] += 1
        truncations = active & ~terminations & (self.elapsed >= self.max_steps)
        self.finished |= terminations | truncations
        return self._observe(), rewards, terminations, truncations, self._infos(np.ones(self.num_envs, bool))

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One frame per sub-environment, each (height, width, 3) uint8; None without a render mode."""
        return None if self.render_mode is None else tuple(self._frame(i) for i in range(self.num_envs))

    def _set_tasks(self, mask: np.ndarray, task_id: Any) -> None:
        if task_id is None:
            self._task_is_set[mask], self.task_id[mask] = False, -1
            return
        ids = self.task_split.check(self.name, task_id)
        if ids.shape not in ((), (self.num_envs,)):
            raise ValueError(
                f"{self.name}: task_id has shape {ids.shape}: give one id, or one for each of {self.num_envs}."
            )
        self._task_is_set[mask] = True
        self.task_id[mask] = np.broadcast_to(ids, self.num_envs)[mask]

    def _draw_tasks(self, mask: np.ndarray, seed: int | Sequence[int | None] | None) -> None:
        seeds = seed_list(self.num_envs, seed)
        for i in np.flatnonzero(mask & ~self._task_is_set).tolist():
            own_seed = seeds[i]
            if own_seed is not None:
                self.task_id[i] = seeding.np_random(own_seed)[0].integers(self.task_split.training)
            elif self.task_id[i] < 0:
                self.task_id[i] = self.np_random.integers(self.task_split.training)

    def _infos(self, mask: np.ndarray) -> dict[str, Any]:
        return {
            "task_id": self.task_id.copy(),
            "_task_id": mask.copy(),
            "success": self._succeeded(),
            "_success": mask.copy(),
        }

    def _start(self, mask: np.ndarray) -> None:
        raise NotImplementedError

    def _advance(self, actions: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def _observe(self) -> np.ndarray:
        raise NotImplementedError

    def _succeeded(self) -> np.ndarray:
        raise NotImplementedError

    def _frame(self, index: int) -> np.ndarray:
        raise NotImplementedError


def reset_mask(num_envs: int, options: dict[str, Any]) -> np.ndarray:
    """`options["reset_mask"]` as a (num_envs,) bool array; all without one (ValueError on another shape or type)."""
    mask = options.get("reset_mask")
    if mask is None:
        return np.ones(num_envs, bool)
    mask = np.asarray(mask)
    if mask.shape != (num_envs,) or mask.dtype != np.bool_:
        raise ValueError(f"reset_mask must be {num_envs} booleans, got shape {mask.shape} of {mask.dtype}.")
    return mask


def seed_list(num_envs: int, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
    """One seed per sub-environment, `seed + i` as gymnasium gives them (ValueError on another length)."""
    if seed is None:
        return [None] * num_envs
    if isinstance(seed, int | np.integer):
        return [int(seed) + i for i in range(num_envs)]
    if len(seed) != num_envs:
        raise ValueError(f"{len(seed)} seeds for {num_envs} environments: give one each, or a single number.")
    return [None if value is None else int(value) for value in seed]
