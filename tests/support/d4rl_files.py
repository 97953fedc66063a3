"""Files as D4RL writes them, from episodes of the environments that score them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

LAYOUTS = ("locomotion", "maze2d", "antmaze", "kitchen", "adroit")


class EpisodeLike(Protocol):
    """`ringrl_envs.Episode`, or anything with its first four columns."""

    observations: np.ndarray  # (T + 1, O) or (T, O); mazes: the goal is last
    actions: np.ndarray  # (T, A)
    rewards: np.ndarray  # (T,)
    terminations: np.ndarray  # (T,) bool


def d4rl_columns(episodes: Sequence[EpisodeLike], layout: str = "locomotion") -> dict[str, Any]:
    """The columns of one of D4RL's layouts, by HDF5 path: T rows an episode, end to end, ends marked.

    Mazes have the goal in infos/goal and not in the observations; kitchen marks the last step of every demonstration
    as terminal, has no timeouts, and a column `infos` with the demonstration's number.
    """
    assert layout in LAYOUTS, layout
    observations = np.concatenate([episode.observations[: len(episode.rewards)] for episode in episodes])
    lasts = np.cumsum([len(episode.rewards) for episode in episodes]) - 1
    columns: dict[str, Any] = {
        "observations": observations.astype(np.float32),
        "actions": np.concatenate([episode.actions for episode in episodes]).astype(np.float32),
        "rewards": np.concatenate([episode.rewards for episode in episodes]).astype(np.float32),
        "terminals": np.zeros(len(observations), bool),
        "timeouts": np.zeros(len(observations), bool),
    }
    ended = np.array([bool(episode.terminations[-1]) for episode in episodes])
    columns["terminals"][lasts] = ended | (layout == "kitchen")
    columns["timeouts"][lasts] = ~ended
    if layout in ("maze2d", "antmaze"):
        columns["infos/goal"] = columns["observations"][:, -2:]
        columns["observations"] = columns["observations"][:, :-2]
        if layout == "antmaze":  # the ant is reset after an arrival, which D4RL marks as a timeout alone
            columns["timeouts"][lasts] = True
    if layout == "kitchen":
        del columns["timeouts"]
        columns["terminals"] = columns["terminals"].astype(np.float32)
        columns["infos"] = np.repeat(np.arange(len(episodes)), np.diff(np.append(-1, lasts)))
    if layout == "locomotion":
        following = [episode.observations[1:] for episode in episodes]
        if all(len(part) == len(episode.rewards) for part, episode in zip(following, episodes, strict=True)):
            columns["next_observations"] = np.concatenate(following).astype(np.float32)
        columns["metadata/algorithm"] = np.bytes_("SAC")
    return columns


def write_columns(path: Path, columns: dict[str, Any], compression: str | None = "gzip") -> Path:
    """A file with these columns (arrays) and metadata (scalars)."""
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            if np.ndim(values):
                file.create_dataset(name, data=values, compression=compression)
            else:
                file[name] = values
    return path


def write_d4rl_file(
    path: str | Path, episodes: Sequence[EpisodeLike], layout: str = "locomotion", *, compression: str | None = "gzip"
) -> Path:
    """Write episodes as D4RL would: see `d4rl_columns` for `layout`, one of LAYOUTS."""
    return write_columns(Path(path), d4rl_columns(episodes, layout), compression)
