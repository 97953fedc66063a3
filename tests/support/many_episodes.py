"""Random concatenated episodes, written one by one or several at once."""

import numpy as np

from ringrl.data import EpisodeStoreWriter
from ringrl.types import ActionKind, ActionSpec

UNBOUNDED = ActionSpec(ActionKind.continuous, 2, (-1.0, -np.inf), (1.0, np.inf))
BOUNDED = ActionSpec(ActionKind.continuous, 2, (0.0, -1.0), (1.0, 1.0))
DISCRETE = ActionSpec(ActionKind.discrete, 4)


def make_episodes(action: ActionSpec, count: int, longest: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Arguments of `EpisodeStoreWriter.append_many`, for episodes of 1 to `longest` steps with 3 observations each."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, count)
    lengths[::3] = longest  # several of one length
    steps = int(lengths.sum())
    actions = rng.integers(0, 4, steps) if action is DISCRETE else rng.uniform(0, 1, (steps, 2))
    if action is BOUNDED:
        actions[::7, 0], actions[3, 0] = 1.0 + 5e-4, -0.0  # clipped, and a zero that keeps its sign
    return {
        "observations": rng.normal(size=(steps, 3)),
        "actions": actions,
        "rewards": rng.normal(size=steps) * 10.0 ** rng.integers(-3, 4, steps),
        "lengths": lengths,
        "terminated": rng.integers(0, 2, count).astype(bool),
        "task_ids": rng.integers(0, 5, count),
        "policies": [f"policy-{k}" for k in rng.integers(0, 3, count)],
    }


def append_one_by_one(writer: EpisodeStoreWriter, given: dict, names: list[str] | None = None) -> None:
    ends = np.cumsum(given["lengths"])
    for episode, end in enumerate(ends):
        steps = slice(end - given["lengths"][episode], end)
        writer.append(
            given["observations"][steps],
            given["actions"][steps],
            given["rewards"][steps],
            terminated=given["terminated"][episode],
            task_id=int(given["task_ids"][episode]),
            policy=given["policies"][episode],
            name=names[episode] if names else "",
        )


def append_in_chunks(writer: EpisodeStoreWriter, given: dict, chunk: int, names: list[str] | None = None) -> None:
    ends = np.cumsum(given["lengths"])
    for first in range(0, len(ends), chunk):
        part = slice(first, first + chunk)
        steps = slice(ends[first] - given["lengths"][first], ends[part][-1])
        writer.append_many(
            *(given[key][steps] for key in ("observations", "actions", "rewards")),
            given["lengths"][part],
            **{key: given[key][part] for key in ("terminated", "task_ids", "policies")},
            episode_names=None if names is None else names[part],
        )
