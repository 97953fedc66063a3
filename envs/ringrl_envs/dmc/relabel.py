"""Rewards and observations of a dm_control task, read from recorded physics."""

from typing import TYPE_CHECKING

import numpy as np

from ringrl_envs.dmc.build import build
from ringrl_envs.dmc.catalogue import task_of_id

if TYPE_CHECKING:
    from ringrl_envs.dmc.simulation import Simulation


class Relabeller:
    """Rewards of one task for episodes of its domain, recorded under any task.

    Rows are ExoRL's: T + 1 of them, where `actions[t]` leads to `physics[t]` and row 0 is where the episode starts.
    Picklable; the simulator is made on first use in a process.

    Args:
        env_id: such as "ringrl/dmc_walker_stand-v0".

    Raises:
        ValueError: not the id of a dm_control task.
    """

    def __init__(self, env_id: str) -> None:
        self.env_id, self._task = env_id, task_of_id(env_id)
        self._simulation: Simulation | None = None

    def __reduce__(self):
        return type(self), (self.env_id,)

    def __call__(self, physics: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Rewards (T + 1,) float64 of states (T + 1, D) reached by actions (T + 1, A); the first is 0.

        A state is restored the way in which the simulator arrives at it (positions and velocities, then mj_step1,
        with the control of the action held), so that the reward is the simulator's to the bit.

        Raises:
            ValueError: shapes that do not fit, or numbers that are not finite.
        """
        simulation, physics, actions = self._checked(physics, actions)
        rewards = np.zeros(len(physics))
        for t in range(1, len(physics)):
            simulation.hold(actions[t])
            simulation.restore(physics[t])
            rewards[t] = simulation.reward()
        return rewards

    def observations(self, physics: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Observations (T + 1, O) float32 of states (T + 1, D) reached by actions (T + 1, A).

        Forces and accelerations (quadruped's and jaco's observations have some) are sensed before a step's last
        integration and are no function of the state: there each step is simulated from the recorded state before it.
        They equal the recorded ones as far as the solver's start from the step before does.

        Raises:
            ValueError: as for calling.
        """
        simulation, physics, actions = self._checked(physics, actions)
        observations = np.empty((len(physics), self.observation_size), np.float32)
        for t in range(len(physics)):
            if t == 0:
                simulation.restart(physics[0])
            elif simulation.senses_acceleration:
                simulation.step(actions[t])
            simulation.restore(physics[t])
            observations[t] = simulation.observation()
        return observations

    def action_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """(lowest, highest) action, each (A,) float32."""
        highest = np.ones(self._built().action_size, np.float32)
        return -highest, highest

    @property
    def observation_size(self) -> int:
        """Numbers in an observation."""
        return len(self._built().observation())

    @property
    def physics_size(self) -> int:
        """Numbers in a row of physics."""
        return self._built().state_size

    def _built(self) -> "Simulation":
        if self._simulation is None:
            self._simulation = build(self._task)
        return self._simulation

    def _checked(self, physics: np.ndarray, actions: np.ndarray) -> tuple["Simulation", np.ndarray, np.ndarray]:
        simulation = self._built()
        physics, actions = np.asarray(physics, np.float64), np.asarray(actions, np.float64)
        simulation.check(physics)
        if actions.shape != (len(physics), simulation.action_size):
            raise ValueError(
                f"actions have shape {actions.shape}: {(len(physics), simulation.action_size)} goes with the physics."
            )
        if not np.isfinite(actions).all():
            raise ValueError(f"actions row {np.argwhere(~np.isfinite(actions))[0, 0]} is not finite.")
        return simulation, physics, actions
