"""ExoRL's reaching tasks for the Jaco arm: dm_control's own reaching task, with the target site in a fixed corner."""

import math
from typing import Any, NamedTuple

import numpy as np
from dm_control import composer
from dm_control.manipulation import reach
from dm_control.manipulation.shared import arenas, constants, observations, robots, workspaces
from dm_control.utils.rewards import tolerance

from ringrl_envs.dmc.simulation import Simulation

HEIGHT = 0.001  # m, of the target
TARGETS = {
    "reach_top_left": (-0.09, 0.09),
    "reach_top_right": (0.09, 0.09),
    "reach_bottom_left": (-0.09, -0.09),
    "reach_bottom_right": (0.09, -0.09),
}
TARGET_RADIUS = 0.05
HAND_STARTS = workspaces.BoundingBox(lower=(-0.2, -0.2, 0.02), upper=(0.2, 0.2, 0.4))


class _Workspace(NamedTuple):
    """What `reach.Reach` wants to know about places."""

    target_bbox: workspaces.BoundingBox
    tcp_bbox: workspaces.BoundingBox
    arm_offset: tuple[float, float, float]


class JacoSimulation(Simulation):
    """Reaching with the arm, stepped without updating the observation at each of the 20 physics steps."""

    def __init__(self, domain: str, name: str) -> None:
        del domain
        self._target = np.array([*TARGETS[name], HEIGHT])
        random = np.random.RandomState()
        self.environment = make_environment(name, random)
        self.environment.reset()  # compiles the model for the last time
        task: Any = self.environment.task
        physics: Any = self.environment.physics
        super().__init__(physics, task.physics_steps_per_control_step, self.environment.action_spec(), random)
        self._hand = physics.bind(task.hand.tool_center_point).element_id
        self._entries = [
            entry.observation_callable(physics, random) for entry in task.observables.values() if entry.enabled
        ]

    def reset(self) -> None:
        self.environment.reset()

    def reward(self) -> float:
        distance = np.linalg.norm(self._data.site_xpos[self._hand] - self._target)
        return float(tolerance(distance, bounds=(0, TARGET_RADIUS), margin=TARGET_RADIUS))

    def observation(self) -> np.ndarray:
        entries = [read() for read in self._entries]
        return np.concatenate(entries, axis=None).astype(np.float32)


def make_environment(name: str, random: np.random.RandomState) -> composer.Environment:
    """dm_control's environment of a task, without a time limit of its own."""
    features = observations.PERFECT_FEATURES
    corner = (*TARGETS[name], HEIGHT)
    task = reach.Reach(
        arena=arenas.Standard(),
        arm=robots.make_arm(features),
        hand=robots.make_hand(features),
        prop=None,
        obs_settings=features,
        workspace=_Workspace(workspaces.BoundingBox(corner, corner), HAND_STARTS, robots.ARM_OFFSET),
        control_timestep=constants.CONTROL_TIMESTEP,
    )
    task.observables["target_position"].enabled = False  # the same in all episodes, and not in ExoRL's observation
    return composer.Environment(task, math.inf, random, recompile_mjcf_every_episode=False)
