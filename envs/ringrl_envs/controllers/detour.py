"""Controllers of graded quality that search: an expert that goes by way of random places."""

from typing import Protocol

import numpy as np

from ringrl_envs.controllers.graded import Expert


class Guide(Expert, Protocol):
    """An expert that can also lead to any place (B, 2) of its environment."""

    def towards(self, observations: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Actions that lead to `places`."""
        ...

    def arrived(self, observations: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Where `places` are reached, (B,) bool."""
        ...

    def random_places(self, rng: np.random.Generator) -> np.ndarray:
        """A random place for every sub-environment, (B, 2)."""
        ...


class DetourController:
    """Quality q in [0, 1]: heads for the goal with probability q, else for a random place, where it decides anew.

    q is drawn uniformly for every episode, or fixed by `quality`: 1 is the expert, 0 wanders from place to place. Once
    it heads for the goal it keeps to it. Unlike actions replaced by random ones, detours cross the whole
    environment, so that data of low quality show how to search it.
    """

    def __init__(self, guide: Guide, num_envs: int, quality: float | None = None) -> None:
        if quality is not None and not 0.0 <= quality <= 1.0:
            raise ValueError(f"quality={quality} is not between 0 (wanders) and 1 (expert).")
        self.guide = guide
        self.fixed_quality = quality
        self.quality = np.full(num_envs, 1.0 if quality is None else quality)
        self.wandering = np.zeros(num_envs, bool)
        self.places: np.ndarray | None = None

    def reset(self, mask: np.ndarray, rng: np.random.Generator) -> None:
        """Draw the quality and the first place of the episodes that begin."""
        if self.fixed_quality is None:
            self.quality = np.where(mask, rng.uniform(size=len(mask)), self.quality)
        self._decide(mask, rng)

    def act(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Actions (B, A) or (B,)."""
        assert self.places is not None, "reset comes before act"
        self._decide(self.wandering & self.guide.arrived(observations, self.places), rng)
        best = self.guide.act(observations)
        detour = self.guide.towards(observations, self.places)
        return np.where(self.wandering.reshape(-1, *[1] * (best.ndim - 1)), detour, best)

    def labels(self) -> list[str]:
        """The quality of each sub-environment's present episode, such as "detour(q=0.63)"."""
        return [f"detour(q={quality:.2f})" for quality in self.quality]

    def _decide(self, mask: np.ndarray, rng: np.random.Generator) -> None:
        """Where `mask`, choose between the goal and a new place."""
        places = self.guide.random_places(rng)
        self.places = places if self.places is None else np.where(mask[:, None], places, self.places)
        self.wandering = np.where(mask, rng.uniform(size=len(mask)) >= self.quality, self.wandering)
