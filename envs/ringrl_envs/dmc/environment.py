"""A dm_control task as a gymnasium environment."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ringrl_envs.dmc.build import build
from ringrl_envs.dmc.catalogue import split_task

CAMERAS = {"quadruped": 2, "jaco": "front_close"}  # 0 elsewhere


class DmcEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One of `dmc_tasks()`: observations (O,) float32 in ExoRL's order, actions (A,) in [-1, 1], endless by itself.

    Args:
        task: such as "walker_stand".
        render_mode: None or "rgb_array"; `render()` gives (height, width, 3) uint8.

    Raises:
        ValueError: no such task, dm_control is not installed, or nothing to render with.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012 (gymnasium declares it so)

    def __init__(self, task: str, render_mode: str | None = None, width: int = 320, height: int = 240) -> None:
        self.task, self.render_mode = task, render_mode
        self.simulation = build(task)
        seconds = self.simulation.physics.timestep() * self.simulation.steps_per_action
        self.metadata = {**self.metadata, "render_fps": round(1 / seconds)}
        shape = self.simulation.observation().shape
        self.observation_space = spaces.Box(-np.inf, np.inf, shape, np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (self.simulation.action_size,), np.float32)
        self._size = (height, width)
        self._seeded = False
        if render_mode is not None:
            self._check_rendering()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start the episode that dm_control starts with `random=seed`, or the next one."""
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**32))
        if seed is not None:
            self.simulation.random.seed(seed % 2**32)
            self._seeded = True
        self.simulation.reset()
        return self.simulation.observation(), {}

    def step(self, action: np.ndarray):
        """One control step; no task here ends an episode.

        Raises:
            ValueError: the simulation diverges.
        """
        self.simulation.step(action)
        return self.simulation.observation(), self.simulation.reward(), False, False, {}

    def physics_state(self) -> np.ndarray:
        """Positions, velocities and activations, (D,) float64: a row of ExoRL's `physics`."""
        return self.simulation.state()

    def set_physics_state(self, state: np.ndarray) -> np.ndarray:
        """Start from a state (D,) as after `reset`; the observation (O,) there.

        Raises:
            ValueError: a state of another size, or not finite.
        """
        state = np.asarray(state, np.float64)
        self.simulation.check(state[None])
        self.simulation.restart(state)
        return self.simulation.observation()

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Picture of the scene, (height, width, 3) uint8; None without a render mode."""
        if self.render_mode is None:
            return None
        camera = CAMERAS.get(split_task(self.task)[0], 0)
        return self.simulation.physics.render(*self._size, camera_id=camera)

    def _check_rendering(self) -> None:
        if self.render_mode != "rgb_array":
            raise ValueError(f"{self.task}: render_mode={self.render_mode!r} must be 'rgb_array' or None.")
        try:
            self.render()
        except Exception as error:  # each backend fails in its own way
            raise ValueError(
                f"{self.task}: render_mode='rgb_array' needs OpenGL ({error}): "
                "start Python with MUJOCO_GL=egl or osmesa."
            ) from error
