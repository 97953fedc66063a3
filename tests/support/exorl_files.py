"""A folder of three small files as ExoRL records them, imported or refused."""

import os
from pathlib import Path

import numpy as np
import pytest

from ringrl.data.sources.exorl import build_from_exorl
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec

ACTION = ActionSpec(ActionKind.continuous, 2, (-1.0, -1.0), (1.0, 1.0))


def make_arrays(index: int = 1, steps: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(index)
    values = {"observation": rng.normal(size=(steps + 1, 3)), "action": rng.uniform(-1, 1, (steps + 1, 2))}
    values |= {"reward": rng.normal(size=(steps + 1, 1)), "discount": np.ones((steps + 1, 1))}
    values |= {"physics": rng.normal(size=(steps + 1, 4))}
    values["physics"][0, 0] = index
    return values


def save(path: Path, values: dict[str, np.ndarray]) -> None:
    np.savez(path, allow_pickle=True, **values)


def save_three_files(folder: Path) -> Path:
    """A new folder of three episodes of 3 steps each."""
    folder.mkdir()
    for index in range(3):
        save(folder / f"episode_00000{index}_3.npz", make_arrays(index))
    return folder


def build(folder: Path, **changes):
    keywords = {"task": "toy_stand", "action": ACTION, "environment": "ringrl/dmc_toy_stand-v0", "max_episode_steps": 9}
    return build_from_exorl(folder, folder.parent / "store", **(keywords | changes))


def check_refused(folder: Path, **changes) -> str:
    """Check that importing the folder raises one line that names the folder or a file in it, and leaves nothing."""
    before = sorted(os.listdir(folder.parent))
    with pytest.raises(RingRLError) as caught:
        build(folder, **changes)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert sorted(os.listdir(folder.parent)) == before
    return str(caught.value)
