"""Tasks on the models of dm_control.suite: its own, and those that URLB added."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from dm_control import suite
from dm_control.rl import control

from ringrl_envs.dmc import added_tasks, point_mass_maze
from ringrl_envs.dmc.simulation import Simulation

# The suite's task that lends model and step length, and the task that goes in its place.
ADDED: dict[tuple[str, str], tuple[str, Callable[[], Any]]] = {
    ("cheetah", "run_backward"): ("run", lambda: added_tasks.CheetahRun(direction=-1)),
    ("cheetah", "flip"): ("run", lambda: added_tasks.CheetahFlip(direction=1)),
    ("cheetah", "flip_backward"): ("run", lambda: added_tasks.CheetahFlip(direction=-1)),
    ("quadruped", "stand"): ("walk", added_tasks.QuadrupedStand),
    ("quadruped", "jump"): ("walk", added_tasks.QuadrupedJump),
    ("walker", "flip"): ("run", added_tasks.WalkerFlip),
}


class SuiteSimulation(Simulation):
    """A task of the suite's kind, stepped without the bookkeeping of dm_control's own environment."""

    def __init__(self, domain: str, name: str) -> None:
        environment = _load(domain, name)
        self.task: Any = environment.task
        steps = round(environment.control_timestep() / environment.physics.timestep())
        super().__init__(environment.physics, steps, environment.action_spec(), self.task.random)

    def reset(self) -> None:
        with self.physics.reset_context():
            self.task.initialize_episode(self.physics)

    def reward(self) -> float:
        return float(self.task.get_reward(self.physics))

    def observation(self) -> np.ndarray:
        entries = list(self.task.get_observation(self.physics).values())
        return np.concatenate(entries, axis=None).astype(np.float32)


def _load(domain: str, name: str) -> control.Environment:
    """dm_control's environment of a task, without a time limit of its own."""
    if domain == "point_mass_maze":
        return control.Environment(point_mass_maze.physics(name), point_mass_maze.Reach(name), math.inf)
    if (domain, name) not in ADDED:
        return suite.load(domain, name, task_kwargs={"time_limit": math.inf})
    template, task = ADDED[domain, name]
    lender = suite.load(domain, template, task_kwargs={"time_limit": math.inf})
    return control.Environment(lender.physics, task(), math.inf, control_timestep=lender.control_timestep())
