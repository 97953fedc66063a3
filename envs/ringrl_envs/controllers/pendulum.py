"""The expert of Pendulum-v1: pump energy until the pendulum can be caught, then balance it.

Astrom and Furuta 2000, "Swinging up a pendulum by energy control" (Automatica 36). With gymnasium's mass and length
of 1 and gravity of 10, the energy is velocity^2 / 6 + 5 cos(angle), 5 at rest upright, and torque times velocity is
the power put in.
"""

import numpy as np

MAX_TORQUE = 2.0
UPRIGHT_ENERGY = 5.0
CATCH_ANGLE = 0.45  # radians from upright
CATCH_SPEED = 3.0
STIFFNESS = 14.0
DAMPING = 3.0
PUMP_GAIN = 4.0


class PendulumExpert:
    """Observation (cosine, sine, angular velocity), the angle measured from upright; action: torque in [-2, 2]."""

    def __init__(self, vector_env) -> None:
        del vector_env

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Torques (B, 1) for observations (B, 3)."""
        cosine, sine, velocity = observations.astype(np.float64).T
        angle = np.arctan2(sine, cosine)
        missing = UPRIGHT_ENERGY - (velocity**2 / 6 + UPRIGHT_ENERGY * cosine)
        direction = np.where(velocity >= 0, 1.0, -1.0)
        pump = PUMP_GAIN * missing * direction
        balance = -STIFFNESS * angle - DAMPING * velocity
        near = (np.abs(angle) < CATCH_ANGLE) & (np.abs(velocity) < CATCH_SPEED)
        return np.clip(np.where(near, balance, pump), -MAX_TORQUE, MAX_TORQUE).astype(np.float32)[:, None]
