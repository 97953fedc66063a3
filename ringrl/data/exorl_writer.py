"""Writing of episodes as ExoRL's npz files, one per file and each written atomically."""

import errno
import fcntl
import os
import re
import weakref
from pathlib import Path

import numpy as np

from ringrl.data.column_writer import make_write_error
from ringrl.data.sources.exorl import FILE_NAME
from ringrl.errors import RingRLError
from ringrl.files import replacing

_UNFINISHED = re.compile(r"\.episode_[0-9]+_[0-9]+\.npz")


class ExorlWriter:
    """Appends episodes to a folder as `episode_<index>_<length>.npz`, continuing after the last one there.

    Raises `RingRLError` for a folder that holds any other files, or that another writer is using. Format: Yarats et al.
    2022, arXiv 2201.13425.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder, os.O_RDONLY)
        except FileExistsError:
            raise RingRLError(f"{self.folder}: is a file; give a folder to write episodes to.") from None
        except OSError as error:
            raise make_write_error(self.folder, error) from error
        weakref.finalize(self, os.close, lock)  # closing releases the lock
        self._lock(lock)
        names = os.listdir(self.folder)
        for name in filter(_UNFINISHED.fullmatch, names):  # of a killed writer
            (self.folder / name).unlink(missing_ok=True)
        matches = {name: FILE_NAME.fullmatch(name) for name in names if not name.startswith(".")}
        foreign = sorted(name for name, match in matches.items() if match is None)
        if foreign:
            raise RingRLError(
                f"{self.folder}: holds {foreign[0]!r}, which is no episode of an ExoRL set; give a folder of its own."
            )
        self.next_index = 1 + max((int(match[1]) for match in matches.values() if match), default=-1)

    def append(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        physics: np.ndarray,
        terminated: bool = False,
    ) -> Path:
        """Write one episode of T steps and return its file.

        Observations (T + 1, O), actions (T, A) and rewards (T,) are stored as float32, physics (T + 1, D) as float64.
        Raises `RingRLError` for other shapes, and when the file cannot be written.
        """
        steps = len(rewards)
        arrays = {
            "observation": np.asarray(observations, np.float32),
            "action": _after_dummy(actions),
            "reward": _after_dummy(np.reshape(rewards, (steps, 1))),
            "discount": np.ones((steps + 1, 1), np.float32),
            "physics": np.asarray(physics, np.float64),
        }
        shapes = {key: values.shape for key, values in arrays.items()}
        if not steps or any(len(shape) != 2 or shape[0] != steps + 1 for shape in shapes.values()):
            raise RingRLError(
                f"{self.folder}, episode {self.next_index}: {steps} rewards, observations {np.shape(observations)}, "
                f"actions {np.shape(actions)}, physics {np.shape(physics)}; T rewards go with (T, size) actions, and "
                "with (T + 1, size) observations and physics."
            )
        arrays["discount"][-1] = 0.0 if terminated else 1.0
        path = self.folder / f"episode_{self.next_index:06d}_{steps}.npz"
        self._write(path, arrays)
        self.next_index += 1
        return path

    def _write(self, path: Path, arrays: dict[str, np.ndarray]) -> None:
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)
        except OSError as error:
            raise make_write_error(path, error) from error

    def _lock(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return  # a file system without locks
            raise RingRLError(
                f"{self.folder}: another process is writing episodes there; wait for it, or give another folder."
            ) from error


def _after_dummy(values: np.ndarray) -> np.ndarray:
    """Float32 rows after a row of zeros."""
    values = np.asarray(values, np.float32)
    return np.concatenate([np.zeros_like(values[:1]), values])
