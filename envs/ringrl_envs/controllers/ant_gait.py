"""A gait that moves the MuJoCo ant in any direction without turning it.

The ant's four legs are alike, so nothing need face forward. Diagonal legs step together. While a foot is on the
ground it is carried against the direction of travel: the hip sweeps it sideways, the ankle draws it in or out, each
in proportion to the sine and cosine of the angle between leg and direction. Legs on the lower side of a tilted torso
push down. Torques follow the targets of the joints.
"""

import dataclasses

import numpy as np

STEP = 0.05  # seconds between actions
LEG_ANGLES = np.deg2rad([45.0, 135.0, 225.0, 315.0])  # legs 1 to 4, seen from above, from the torso's x axis
DIAGONALS = np.array([0.0, np.pi, 0.0, np.pi])
ANKLE_SIGNS = np.array([1.0, -1.0, -1.0, 1.0])  # ankles 2 and 3 bend down with a negative angle
LEG_OF_MOTOR = np.array([3, 0, 1, 2])  # motors come in the order of legs 4, 1, 2, 3


@dataclasses.dataclass(frozen=True)
class Gait:
    """Angles in radians, gains in torque (1 is the motor's limit) per radian and per radian per second."""

    frequency: float  # hertz
    hip_swing: float
    ankle_rest: float
    ankle_lift: float
    lift_phase: float
    ankle_draw: float
    draw_phase: float
    hip_stiffness: float
    hip_damping: float
    ankle_stiffness: float
    ankle_damping: float
    balance: float  # of the ankle, per radian that the torso leans to the leg's side
    balance_rate: float  # and per radian per second


def yaw_of(quaternions: np.ndarray) -> np.ndarray:
    """Where the torso's x axis points, seen from above: (B,) radians for quaternions (B, 4), w first."""
    w, x, y, z = quaternions.T
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y**2 + z**2))


def upright(quaternions: np.ndarray) -> np.ndarray:
    """The height of the torso's z axis, 1 standing and -1 on its back: (B,) for quaternions (B, 4), w first."""
    _, x, y, _ = quaternions.T
    return 1 - 2 * (x**2 + y**2)


def lean(body: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far the torso leans toward each leg, and how fast: (B, 4) radians, and per second, of small angles."""
    w, x, y, z = body[:, 1:5].T
    down = -2 * np.stack([x * z - w * y, y * z + w * x], axis=1)  # in the torso's own axes
    rate = np.stack([body[:, 17], -body[:, 16]], axis=1)
    legs = np.stack([np.cos(LEG_ANGLES), np.sin(LEG_ANGLES)])
    return down @ legs, rate @ legs


def walk(gait: Gait, phase: np.ndarray, body: np.ndarray, bearing: np.ndarray, effort: np.ndarray) -> np.ndarray:
    """Actions (B, 8) in [-1, 1].

    `phase` (B,) radians of the step cycle; `body` (B, 27) the ant's own observation (height, quaternion, joints, and
    their velocities); `bearing` (B,) where to go, radians in the world; `effort` (B,) 0 (stand) to 1 (full stride).
    """
    hips, ankles = body[:, 5:13:2], body[:, 6:13:2] * ANKLE_SIGNS
    hip_speeds, ankle_speeds = body[:, 19:27:2], body[:, 20:27:2] * ANKLE_SIGNS
    direction = LEG_ANGLES - (bearing - yaw_of(body[:, 1:5]))[:, None]
    cycle = phase[:, None] + DIAGONALS
    scale = effort[:, None]
    tilt, tilt_rate = lean(body)
    hip_target = -scale * gait.hip_swing * np.sin(direction) * np.sin(cycle)
    ankle_target = gait.ankle_rest + gait.balance * tilt + gait.balance_rate * tilt_rate
    ankle_target += scale * (
        gait.ankle_lift * np.sin(cycle + gait.lift_phase)
        + gait.ankle_draw * np.cos(direction) * np.sin(cycle + gait.draw_phase)
    )
    hip_torque = gait.hip_stiffness * (hip_target - hips) - gait.hip_damping * hip_speeds
    ankle_torque = gait.ankle_stiffness * (ankle_target - ankles) - gait.ankle_damping * ankle_speeds
    torques = np.stack([hip_torque, ankle_torque * ANKLE_SIGNS], axis=2)[:, LEG_OF_MOTOR]
    return np.clip(torques.reshape(-1, 8), -1.0, 1.0).astype(np.float32)
