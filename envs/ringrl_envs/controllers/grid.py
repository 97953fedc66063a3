"""The expert of DarkRoom and DarkKeyToDoor: straight to the hidden cell, rows before columns."""

import numpy as np

STAY, UP, DOWN, LEFT, RIGHT = range(5)


class GridExpert:
    """Reads the hidden cells from the vector environment's `goals` (B, 2)."""

    def __init__(self, vector_env) -> None:
        self.vector_env = vector_env

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Actions (B,) int64 for cells (B, 2)."""
        return self.towards(observations, self.vector_env.goals)

    def towards(self, observations: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Actions (B,) int64 that lead to the cells `places` (B, 2)."""
        rows, columns = (places - observations.astype(np.int64)).T
        vertical = np.where(rows < 0, UP, DOWN)
        horizontal = np.where(columns < 0, LEFT, np.where(columns > 0, RIGHT, STAY))
        return np.where(rows != 0, vertical, horizontal)

    def arrived(self, observations: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Where `places` (B, 2) are reached: (B,) bool."""
        return (observations.astype(np.int64) == places).all(axis=1)

    def random_places(self, rng: np.random.Generator) -> np.ndarray:
        """A uniformly drawn cell for every sub-environment, (B, 2) int64."""
        return rng.integers(self.vector_env.size, size=(self.vector_env.num_envs, 2))
