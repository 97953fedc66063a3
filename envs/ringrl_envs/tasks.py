"""Tasks of an environment: how they are numbered, and which are held out of training."""

import dataclasses
from typing import Any

import numpy as np

SPLITS = ("training", "held_out", "all")


@dataclasses.dataclass(frozen=True)
class TaskSplit:
    """Numbers of training and held-out tasks: ids 0 .. training - 1, then the held-out ones."""

    training: int
    held_out: int

    def __post_init__(self) -> None:
        if self.training < 1 or self.held_out < 0:
            raise ValueError(
                f"{self.training} training and {self.held_out} held-out tasks: at least 1 must be left to train on."
            )

    @property
    def count(self) -> int:
        """Number of all tasks."""
        return self.training + self.held_out

    def ids(self, split: str) -> list[int]:
        """Task ids of one split.

        Raises:
            ValueError: the split is none of training, held_out, all.
        """
        if split not in SPLITS:
            raise ValueError(f"split={split!r} is none of {', '.join(SPLITS)}.")
        first = self.training if split == "held_out" else 0
        last = self.training if split == "training" else self.count
        return list(range(first, last))

    def check(self, name: str, task_id: Any) -> np.ndarray:
        """The task id or ids as an int64 array.

        Raises:
            ValueError: an id is not a whole number, or not one of this environment's.
        """
        ids = np.asarray(task_id)
        if ids.dtype.kind not in "iu":
            raise ValueError(f"{name}: task_id={task_id!r} is not a whole number: use 0 to {self.count - 1}.")
        wrong = ids[(ids < 0) | (ids >= self.count)]
        if wrong.size:
            held_out = f", {self.training} to {self.count - 1} held out" if self.held_out else ""
            raise ValueError(
                f"{name} has no task {int(wrong.flat[0])}: use 0 to {self.count - 1}"
                f" (0 to {self.training - 1} training{held_out})."
            )
        return ids.astype(np.int64)


def one_task(**_: Any) -> TaskSplit:
    """The split of an environment without tasks: task 0, which serves training and evaluation alike."""
    return TaskSplit(1, 0)
