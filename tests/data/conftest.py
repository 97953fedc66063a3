"""Small stores of random episodes of several lengths and tasks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ringrl.data import EpisodeStore, EpisodeStoreWriter
from ringrl.types import ActionKind, ActionSpec

CONTINUOUS = ActionSpec(ActionKind.continuous, 2, (-1.0, -2.0), (1.0, 2.0))
DISCRETE = ActionSpec(ActionKind.discrete, 5)


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., EpisodeStore]:
    """make_store(tasks=, episodes=, discrete=, seed=): `episodes` of each task, 1 to 9 steps, whole-number rewards."""

    def make(
        tasks: int = 3, episodes: int = 6, discrete: bool = False, seed: int = 0, max_steps: int = 9
    ) -> EpisodeStore:
        rng = np.random.default_rng(seed)
        path = tmp_path / f"store-{tasks}-{episodes}-{discrete}-{seed}-{max_steps}"
        action = DISCRETE if discrete else CONTINUOUS
        with EpisodeStoreWriter(path, 3, action) as writer:
            for index in range(tasks * episodes):
                steps = int(rng.integers(1, max_steps + 1))
                actions = rng.integers(0, 5, steps) if discrete else rng.uniform(-1, 1, (steps, 2))
                writer.append(
                    rng.normal(size=(steps + 1, 3)),
                    actions,
                    rng.integers(-1, 3, steps).astype(float),  # equal returns are frequent
                    terminated=bool(rng.integers(2)),
                    task_id=10 + index % tasks,
                    policy=f"policy-{index % 2}",
                )
            return writer.finish()

    return make
