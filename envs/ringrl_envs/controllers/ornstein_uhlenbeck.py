"""Ornstein-Uhlenbeck noise as actions: random, but each action is near the one before.

Uhlenbeck and Ornstein 1930, "On the theory of the Brownian motion" (Physical Review 36); as exploration noise,
Lillicrap et al. 2016, "Continuous control with deep reinforcement learning" (arXiv 1509.02971, section 7), whose
theta of 0.15 is the default here. Their sigma of 0.2 is meant for noise added to a policy; as the whole action 0.3
uses more of the space.
"""

import numpy as np
from gymnasium import spaces

THETA = 0.15
SIGMA = 0.3


class OrnsteinUhlenbeckController:
    """x <- (1 - theta) x + sigma n with n normal, per dimension; the action is x clipped to [-1, 1], then scaled.

    [-1, 1] becomes the action space's bounds; a side without one counts as 2 from the other, or as -1 and 1. x starts
    every episode from its stationary distribution, normal with a standard deviation of sigma / sqrt(1 - (1 -
    theta)^2), 0.57 by default, so that first actions vary as much as later ones. x is remembered over about 1 / theta
    steps.
    """

    def __init__(
        self, action_space: spaces.Space, num_envs: int, *, theta: float = THETA, sigma: float = SIGMA
    ) -> None:
        if not isinstance(action_space, spaces.Box) or not np.issubdtype(action_space.dtype, np.floating):
            raise ValueError(f"no Ornstein-Uhlenbeck noise for {action_space}: only continuous Box actions have it.")
        if not 0.0 < theta <= 1.0:
            raise ValueError(f"theta={theta} is not above 0 and at most 1 (white noise).")
        if not (np.isfinite(sigma) and sigma > 0.0):
            raise ValueError(f"sigma={sigma} is not a positive number.")
        low, high = action_space.low.astype(np.float64), action_space.high.astype(np.float64)
        below, above = np.isfinite(low), np.isfinite(high)
        low, high = (
            np.where(below, low, np.where(above, high - 2.0, -1.0)),
            np.where(above, high, np.where(below, low + 2.0, 1.0)),
        )
        self.middle, self.half = low / 2 + high / 2, high / 2 - low / 2
        self.low, self.high = low.astype(action_space.dtype), high.astype(action_space.dtype)
        self.theta, self.sigma = theta, sigma
        self.state = np.zeros((num_envs, *action_space.shape))

    def reset(self, mask: np.ndarray, rng: np.random.Generator) -> None:
        """Draw the first state of the episodes that begin."""
        deviation = self.sigma / np.sqrt(1.0 - (1.0 - self.theta) ** 2)
        drawn = deviation * rng.standard_normal(self.state.shape)
        self.state = np.where(self._wide(mask), drawn, self.state)

    def act(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Actions (B, A)."""
        del observations
        actions = (self.middle + self.half * self.state).astype(self.low.dtype)
        self.state = (1.0 - self.theta) * self.state + self.sigma * rng.standard_normal(self.state.shape)
        return np.clip(actions, self.low, self.high)

    def labels(self) -> list[str]:
        """ "ou", B times."""
        return ["ou"] * len(self.state)

    def _wide(self, mask: np.ndarray) -> np.ndarray:
        return np.asarray(mask).reshape(-1, *[1] * (self.state.ndim - 1))
