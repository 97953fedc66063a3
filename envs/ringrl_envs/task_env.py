"""Base of the single environments whose hidden goal is fixed per task."""

from typing import Any, ClassVar

import gymnasium
import numpy as np

from ringrl_envs.tasks import TaskSplit


class TaskEnv(gymnasium.Env):
    """An environment with numbered tasks and a fixed number of decisions per episode.

    `reset(options={"task_id": k})` sets the task, which stays until it is set again (`None` forgets it). Without
    one a training task is drawn at the first reset and at every reset with a seed, and stays in between.
    `info` holds `task_id` and `success`. Subclasses give `_start`, `_advance`, `_observe`, `_succeeded`, `_frame`.
    """

    name: ClassVar[str]
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium declares it so)

    def __init__(self, task_split: TaskSplit, max_steps: int, render_mode: str | None = None) -> None:
        check_common(self.name, max_steps, render_mode, self.metadata["render_modes"])
        self.task_split = task_split
        self.max_steps = max_steps
        self.render_mode = render_mode
        self.task_id = -1
        self.elapsed = 0
        self._task_is_set = False

    @classmethod
    def split_tasks(cls, **kwargs: Any) -> TaskSplit:
        """The split that these constructor arguments give, without building the environment."""
        raise NotImplementedError

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start an episode; see the class for `task_id`.

        Raises:
            ValueError: no such task.
        """
        super().reset(seed=seed)
        if options and "task_id" in options:
            self._task_is_set = options["task_id"] is not None
            if self._task_is_set:
                self.task_id = int(self.task_split.check(self.name, options["task_id"]))
            else:
                self.task_id = -1
        if not self._task_is_set and (seed is not None or self.task_id < 0):
            self.task_id = int(self.np_random.integers(self.task_split.training))
        self.elapsed = 0
        self._start()
        return self._observe(), self._info()

    def step(self, action: Any):
        """One decision; an episode that has not terminated is truncated after `max_steps` of them."""
        reward, terminated = self._advance(action)
        self.elapsed += 1
        truncated = not terminated and self.elapsed >= self.max_steps
        return self._observe(), reward, terminated, truncated, self._info()

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The scene from above, (height, width, 3) uint8, hidden goal included; None without a render mode."""
        return None if self.render_mode is None else self._frame()

    def _info(self) -> dict[str, Any]:
        return {"task_id": self.task_id, "success": self._succeeded()}

    def _start(self) -> None:
        raise NotImplementedError

    def _advance(self, action: Any) -> tuple[float, bool]:
        raise NotImplementedError

    def _observe(self) -> np.ndarray:
        raise NotImplementedError

    def _succeeded(self) -> bool:
        raise NotImplementedError

    def _frame(self) -> np.ndarray:
        raise NotImplementedError


def check_common(name: str, max_steps: int, render_mode: str | None, render_modes: list[str]) -> None:
    """Refuse settings that no environment here can have (ValueError)."""
    if max_steps < 1:
        raise ValueError(f"{name}: max_steps={max_steps} must be at least 1.")
    if render_mode is not None and render_mode not in render_modes:
        raise ValueError(f"{name}: render_mode={render_mode!r} is none of {', '.join(render_modes)}.")
