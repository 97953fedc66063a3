"""The expert of FrankaKitchen-v1: for every task a short list of places for the hand, reached by resolved rates.

The hand always points into the kitchen (+y), fingers side by side. Joint velocities come from damped least squares on
the hand's Jacobian (Nakamura and Hanafusa 1986, "Inverse kinematic solutions with singularity robustness", ASME
Journal of Dynamic Systems 108), drawn to the first posture where that is free, without the joints that are at a limit.
Places are relative to the sites that the simulation's model has on every handle.
"""

import dataclasses
from typing import Any

import numpy as np

DISTANCE_GAIN = 6.0  # per second
MOST_SPEED = 1.5  # meters per second asked for; the arm lags behind
TURN_GAIN = 4.2  # per second
TURN_WEIGHT = 0.4  # a radian's worth in meters
POSTURE_GAIN = 0.1  # per second
SMOOTHING = 0.003
LIMIT_MARGIN = 0.02  # radians
ARM = 7  # joints before the two fingers
FULL_SPEED = 2.0  # radians per second of action 1
INTO_KITCHEN = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # rows x, y, z of the hand's axes


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the hand goes next, relative to the task's site: meters, x to the right, y inwards, z up."""

    offset: tuple[float, float, float]
    grip: bool = False  # closed fingers
    follow: bool = False  # keep the offset to the site as it moves, instead of to where it was
    twist: float = 0.0  # radians about y
    steps: int = 25  # given up after so many
    tolerance: float = 0.02  # meters; there before


def grasp(depth: float, twist_after: float, pull: tuple[float, float, float]) -> list[Place]:
    """Open fingers around the handle, close them, lead it away."""
    return [
        Place((0.0, -0.15, 0.0)),
        Place((0.0, depth, 0.0)),
        Place((0.0, depth, 0.0), grip=True, steps=5, tolerance=0.0),
        Place(pull, grip=True, follow=True, twist=twist_after, steps=40, tolerance=0.0),
    ]


SITES_AND_PLACES: dict[str, tuple[str, list[Place]]] = {
    "microwave": ("microhandle_site", grasp(-0.02, 0.0, (-0.01, -0.13, 0.0))),
    "kettle": (
        "kettle_site",
        [
            Place((0.0, -0.22, 0.0), grip=True),
            Place((0.0, -0.22, -0.17), grip=True),
            Place((0.0, 0.1, -0.17), grip=True, steps=40),
        ],
    ),
    "bottom burner": ("knob2_site", grasp(-0.03, 1.2, (0.0, -0.03, 0.0))),
    "top burner": ("knob4_site", grasp(-0.03, 1.2, (0.0, -0.03, 0.0))),
    "light switch": (
        "light_site",
        [
            Place((0.08, -0.15, 0.0), grip=True),
            Place((0.08, 0.0, 0.0), grip=True),
            Place((-0.12, 0.0, 0.0), grip=True, steps=30),
        ],
    ),
    "slide cabinet": (
        "slide_site",
        [Place((0.0, -0.15, 0.0)), Place((0.0, 0.03, 0.0)), Place((0.2, 0.03, 0.0), steps=30)],
    ),
}  # in the order they are done in; hinge cabinet has no script


class KitchenExpert:
    """Does the environment's tasks one after the other, and again those that failed; then the hand stays.

    It reads the simulations themselves (joints, Jacobians, which tasks are done), not the observations.
    """

    def __init__(self, vector_env) -> None:
        self.environments = [env.unwrapped for env in vector_env.envs]
        self.hands = [_Hand(environment) for environment in self.environments]

    def reset(self, mask: np.ndarray) -> None:
        """Episodes begin where `mask` (B,): start from the first task."""
        for i in np.flatnonzero(mask):
            self.hands[i] = _Hand(self.environments[i])

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Joint velocities (B, 9) in [-1, 1] of full speed, fingers last."""
        del observations
        return np.stack([hand.act() for hand in self.hands])


class _Hand:
    """One arm, and how far it is with its tasks."""

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self.model, self.data = environment.model, environment.data
        self.hand = self.model.site("end_effector").id
        self.posture = np.array(environment.robot_env.init_qpos[:ARM])
        self.waiting = [task for task in SITES_AND_PLACES if task in environment.goal]
        self.stage = 0
        self.steps = 0
        self.anchor: np.ndarray | None = None  # where the site was when the stage began

    def act(self) -> np.ndarray:
        """(9,) float64; stands still when all is done."""
        self._skip_done()
        if not self.waiting:
            return self._velocities(np.array(self.data.site_xpos[self.hand]), INTO_KITCHEN, grip=False)
        place, aim = self._place()
        if self.steps >= place.steps or np.linalg.norm(self.data.site_xpos[self.hand] - aim) < place.tolerance:
            self._next_stage()
            place, aim = self._place()
        self.steps += 1
        return self._velocities(aim, turned(INTO_KITCHEN, place.twist), place.grip)

    def _skip_done(self) -> None:
        done = self.environment.episode_task_completions
        if self.waiting and self.waiting[0] in done:
            self.stage, self.steps, self.anchor = 0, 0, None
        self.waiting = [task for task in self.waiting if task not in done]

    def _next_stage(self) -> None:
        """After the last stage of a task that is still not done, the next task comes first."""
        self.stage, self.steps, self.anchor = self.stage + 1, 0, None
        if self.stage == len(SITES_AND_PLACES[self.waiting[0]][1]):
            self.stage = 0
            self.waiting = self.waiting[1:] + self.waiting[:1]

    def _place(self) -> tuple[Place, np.ndarray]:
        site, places = SITES_AND_PLACES[self.waiting[0]]
        place = places[self.stage]
        if self.anchor is None or place.follow:
            self.anchor = np.array(self.data.site(site).xpos)
        return place, self.anchor + place.offset

    def _velocities(self, aim: np.ndarray, axes: np.ndarray, grip: bool) -> np.ndarray:
        from mujoco import mj_jacSite  # pyright: ignore[reportAttributeAccessIssue]  # not before a kitchen is there

        jacobian = np.zeros((6, self.model.nv))
        mj_jacSite(self.model, self.data, jacobian[:3], jacobian[3:], self.hand)
        away = aim - self.data.site_xpos[self.hand]
        move = away * min(DISTANCE_GAIN, MOST_SPEED / max(float(np.linalg.norm(away)), 1e-9))
        present = self.data.site_xmat[self.hand].reshape(3, 3)
        turn = TURN_GAIN * 0.5 * np.cross(present.T, axes.T).sum(axis=0)
        joints = self.data.qpos[:ARM]
        speeds = resolved_rates(
            np.concatenate([jacobian[:3, :ARM], TURN_WEIGHT * jacobian[3:, :ARM]]),
            np.concatenate([move, TURN_WEIGHT * turn]),
            POSTURE_GAIN * (self.posture - joints),
            joints,
            self.model.jnt_range[:ARM],
        )
        # The simulated servo is a spring to where a step at this speed would lead: against gravity it gives way.
        gravity = self.data.qfrc_bias[:ARM] - self.data.qfrc_gravcomp[:ARM]
        holding = gravity / self.model.actuator_gainprm[:ARM, 0] / self.environment.robot_env.dt
        fingers = -1.0 if grip else 1.0
        return np.clip(np.append((speeds + holding) / FULL_SPEED, [fingers, fingers]), -1.0, 1.0)


def turned(axes: np.ndarray, angle: float) -> np.ndarray:
    """`axes` (3, 3), as columns, turned about y by `angle` radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]]) @ axes


def resolved_rates(
    jacobian: np.ndarray, velocity: np.ndarray, posture: np.ndarray, joints: np.ndarray, limits: np.ndarray
) -> np.ndarray:
    """Joint velocities (J,) that give `velocity` (6,), and what they leave free to `posture` (J,) velocities.

    Joints at their `limits` (J, 2) do not push beyond them: the others take over.
    """
    free = np.ones(len(joints))
    speeds = np.zeros(len(joints))
    for _ in range(3):
        part = jacobian * free
        inverse = part.T @ np.linalg.inv(part @ part.T + SMOOTHING * np.eye(6))
        speeds = (inverse @ velocity + posture - inverse @ (part @ posture)) * free
        beyond = ((joints < limits[:, 0] + LIMIT_MARGIN) & (speeds < 0)) | (
            (joints > limits[:, 1] - LIMIT_MARGIN) & (speeds > 0)
        )
        if not beyond.any():
            break
        free = free * ~beyond
    return speeds
