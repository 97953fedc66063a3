"""Controllers of graded quality: an expert whose decisions are now and then replaced by random ones."""

from typing import Protocol

import numpy as np
from gymnasium import spaces


class Behaviour(Protocol):
    """What collects episodes: it is told which sub-environments begin one, then acts for all of them.

    A behavior may also have `labels() -> list[str]` (its name for each sub-environment's present episode) and
    `observe(rewards, finished, mask)` (what its own actions led to), which `collect_episodes` calls where present.
    """

    def reset(self, mask: np.ndarray, rng: np.random.Generator) -> None:
        """Episodes begin where `mask` (B,) is True."""
        ...

    def act(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Actions (B, A) or (B,) for observations (B, O)."""
        ...


class Expert(Protocol):
    """The best known action for every sub-environment.

    An expert that remembers something within an episode also has `reset(mask)`, told where (B,) one begins.
    """

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Actions (B, A) or (B,) for observations (B, O)."""
        ...


def random_actions(space: spaces.Space, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` random actions: (count,) int64 for Discrete, (count, ...) for Box.

    Distributed as gymnasium samples them: uniform between two bounds (whole numbers with both), at an exponential
    distance from a single one, normal where there is none.

    Raises:
        ValueError: another kind of space.
    """
    if isinstance(space, spaces.Discrete):
        return int(space.start) + rng.integers(int(space.n), size=count)
    if not isinstance(space, spaces.Box):
        raise ValueError(f"no random actions for {space}: only Box and Discrete action spaces are supported.")
    shape = (count, *space.shape)
    if np.issubdtype(space.dtype, np.integer):
        return rng.integers(space.low, space.high, shape, space.dtype, endpoint=True)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    below, above = np.isfinite(low), np.isfinite(high)
    if (below & above).all():
        with np.errstate(over="ignore"):
            wide = not np.isfinite(high - low).all()
        if not wide:
            return rng.uniform(low, high, shape).astype(space.dtype)
        share = rng.uniform(size=shape)
        return ((1.0 - share) * low + share * high).astype(space.dtype)
    low, high = np.where(below, low, 0.0), np.where(above, high, 0.0)
    share, away, anywhere = rng.uniform(size=shape), rng.exponential(size=shape), rng.standard_normal(shape)
    between = (1.0 - share) * low + share * high
    one_sided = np.where(below, low + away, np.where(above, high - away, anywhere))
    return np.clip(np.where(below & above, between, one_sided), space.low, space.high).astype(space.dtype)


class RandomController:
    """Uniform actions in any environment."""

    def __init__(self, action_space: spaces.Space, num_envs: int) -> None:
        random_actions(action_space, 1, np.random.default_rng(0))
        self.action_space = action_space
        self.num_envs = num_envs

    def reset(self, mask: np.ndarray, rng: np.random.Generator) -> None:
        """Nothing to remember."""

    def act(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Actions (B, A) or (B,)."""
        return random_actions(self.action_space, self.num_envs, rng)

    def labels(self) -> list[str]:
        """ "random", B times."""
        return ["random"] * self.num_envs


class GradedController:
    """An expert with quality q in [0, 1]: each action is replaced by a uniform one with probability (1 - q)^2.

    q is drawn uniformly for every episode, or fixed by `quality`: 1 is the expert, 0 is random.
    """

    def __init__(self, expert: Expert, action_space: spaces.Space, num_envs: int, quality: float | None = None) -> None:
        if quality is not None and not 0.0 <= quality <= 1.0:
            raise ValueError(f"quality={quality} is not between 0 (random) and 1 (expert).")
        self.expert = expert
        self.action_space = action_space
        self.num_envs = num_envs
        self.fixed_quality = quality
        self.quality = np.full(num_envs, 1.0 if quality is None else quality)

    def reset(self, mask: np.ndarray, rng: np.random.Generator) -> None:
        """Draw the quality of the episodes that begin."""
        if self.fixed_quality is None:
            self.quality = np.where(mask, rng.uniform(size=self.num_envs), self.quality)
        if hasattr(self.expert, "reset"):
            self.expert.reset(mask)  # pyright: ignore[reportAttributeAccessIssue]

    def act(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Actions (B, A) or (B,)."""
        best = self.expert.act(observations)
        noise = random_actions(self.action_space, self.num_envs, rng)
        replaced = rng.uniform(size=self.num_envs) < (1.0 - self.quality) ** 2
        return np.where(replaced.reshape(-1, *[1] * (best.ndim - 1)), noise, best).astype(noise.dtype)

    def labels(self) -> list[str]:
        """The quality of each sub-environment's present episode, such as "scripted(q=0.63)"."""
        return [f"scripted(q={quality:.2f})" for quality in self.quality]
