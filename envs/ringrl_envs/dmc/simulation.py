"""A task of dm_control on its physics, with the operations that the environment and the relabeller share."""

import abc
from typing import Any

import numpy as np
from dm_control.rl.control import PhysicsError
from mujoco import mj_step1, mjtStage  # pyright: ignore[reportAttributeAccessIssue]

LARGEST = 1e10  # beyond it mujoco puts its default state in place of the given one


class Simulation(abc.ABC):
    """A task on its physics.

    States are (D,) float64: positions, velocities, activations. Actions are (A,) in [-1, 1]. dm_control ends a
    control step by bringing what depends on position and velocity up to date (mj_step1); what depends on
    acceleration is left from before the last integration, and no reward here looks at that.
    """

    def __init__(self, physics: Any, steps_per_action: int, action_spec: Any, random: np.random.RandomState) -> None:
        self.physics, self.steps_per_action, self.random = physics, steps_per_action, random
        self._model, self._data = physics.model.ptr, physics.data.ptr
        self._parts = (self._data.qpos, self._data.qvel, self._data.act)
        self._ends = np.cumsum([0] + [part.size for part in self._parts]).tolist()
        self._control = self._data.ctrl
        self.state_size: int = self._ends[-1]
        self.action_size: int = self._control.size
        self._middle = (action_spec.maximum + action_spec.minimum) / 2
        self._half = (action_spec.maximum - action_spec.minimum) / 2
        self._scaled = bool((self._middle != 0).any() or (self._half != 1).any())
        self.senses_acceleration = bool((self._model.sensor_needstage == int(mjtStage.mjSTAGE_ACC)).any())

    @abc.abstractmethod
    def reset(self) -> None:
        """Start an episode, drawn from `random`."""

    @abc.abstractmethod
    def reward(self) -> float:
        """Reward of the state, and of the control where the task's reward has such a term."""

    @abc.abstractmethod
    def observation(self) -> np.ndarray:
        """Observation of the state, (O,) float32."""

    def step(self, action: np.ndarray) -> None:
        """One control step; raises ValueError where the simulation diverges."""
        self.hold(action)
        try:
            self.physics.step(self.steps_per_action)
        except PhysicsError as error:
            raise ValueError(f"the simulation diverged ({error}): look for actions or states out of range.") from error

    def hold(self, action: np.ndarray) -> None:
        """Give the actuators the values that an action stands for."""
        self._control[:] = self._middle + self._half * action if self._scaled else action

    def state(self) -> np.ndarray:
        """Copy of the state (D,)."""
        return np.concatenate(self._parts)

    def restore(self, state: np.ndarray) -> None:
        """Be in a state (D,) as after a control step, with all that depends on position and velocity."""
        self._write(state)
        mj_step1(self._model, self._data)

    def restart(self, state: np.ndarray) -> None:
        """Be in a state (D,) as at the start of an episode: what follows depends on it and the actions alone."""
        with self.physics.reset_context():
            self._write(state)

    def check(self, states: np.ndarray) -> None:
        """Refuse states (N, D) of another size, or such as mujoco would quietly replace.

        Raises:
            ValueError: so it is; the line names the row.
        """
        if states.ndim != 2 or states.shape[1] != self.state_size:
            raise ValueError(f"physics has shape {states.shape}: rows of {self.state_size} numbers are needed.")
        usable = np.abs(states) <= LARGEST
        if not usable.all():
            row, column = np.argwhere(~usable)[0]
            raise ValueError(f"physics row {row}, number {column}, is {states[row, column]}: no state to be in.")

    def _write(self, state: np.ndarray) -> None:
        for part, start, end in zip(self._parts, self._ends[:-1], self._ends[1:], strict=True):
            part[:] = state[start:end]
