"""A cache of relabeled rewards during an import, so that a killed import need not compute them again."""

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ringrl.data.column_writer import make_write_error
from ringrl.errors import RingRLError
from ringrl.files import replacing


@dataclasses.dataclass(frozen=True)
class RewardCache:
    """Rewards of batches of files in a hidden folder beside the store: one `.npy` per batch, written atomically."""

    folder: Path
    task: str  # the environment and the task of the rewards

    @classmethod
    def beside(cls, store_path: Path, task: str) -> "RewardCache":
        """The cache of an import into `store_path`."""
        return cls(store_path.parent / f".{store_path.name}.rewards", task)

    def key(self, files: Sequence[Path]) -> str:
        """A key that changes with the task and with path, size or time of any of these files; they must be readable."""
        content = hashlib.blake2b(self.task.encode(), digest_size=16)
        for file in files:
            try:
                status = file.stat()
            except OSError as error:
                raise RingRLError(f"{file}: cannot be read ({error.strerror}); leave it in place.") from error
            content.update(f"{os.path.abspath(file)}:{status.st_size}:{status.st_mtime_ns};".encode())
        return content.hexdigest()

    def load(self, key: str, steps: int) -> np.ndarray | None:
        """The (steps,) float32 rewards stored under `key`, or None if they are missing or damaged."""
        try:
            rewards = np.load(self.folder / f"{key}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return rewards if rewards.shape == (steps,) and rewards.dtype == np.float32 else None

    def save(self, key: str, rewards: np.ndarray) -> None:
        """Store (steps,) float32 rewards; raises `RingRLError` if they cannot be written."""
        try:
            with replacing(self.folder / f"{key}.npy") as temporary, temporary.open("wb") as stream:
                np.save(stream, rewards, allow_pickle=False)
        except OSError as error:
            raise make_write_error(self.folder, error) from error

    def remove(self) -> None:
        """Remove the cache."""
        shutil.rmtree(self.folder, ignore_errors=True)
