"""The files of a run's checkpoints: their names, and their atomic creation and removal.

    checkpoints/
      step_00000500/
        parameters/     arrays, orbax
        training/       optimizer state, step, key, counters, orbax
        metadata.json   what the caller gave, plus step, metric and a checksum per file

A checkpoint is written under a hidden name in the same folder and renamed when complete; before removal it is renamed
to a hidden name. So if the process is killed at any time, every folder with a checkpoint's name is complete.
"""

import errno
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringrl.training.disk import flush

_PREFIX = "step_"
_UNFINISHED = ".unfinished_"  # being written or removed: never read
_REPLACED = ".replaced_"  # complete, while its successor is renamed: read if there is no successor
_OVERHEAD_BYTES = 1 << 16  # of a checkpoint besides its arrays


class CheckpointFolder:
    """One run's checkpoints as folders. With several processes, only one of them changes the folders."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory).absolute()

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending, including damaged ones."""
        found = [
            step
            for prefix in ("", _REPLACED)
            for path in self.directory.glob(f"{prefix}{_PREFIX}*")
            if path.is_dir() and (step := parse_step(path.name.removeprefix(prefix))) is not None
        ]
        return sorted(set(found))

    def path(self, step: int) -> Path:
        """The path of a step's checkpoint, whether or not it exists."""
        path = self.directory / f"{_PREFIX}{step:08d}"
        replaced = self._hidden(_REPLACED, step)
        return replaced if replaced.is_dir() and not path.exists() else path

    def unfinished(self, step: int) -> Path:
        """The hidden folder in which a step's checkpoint is written."""
        return self._hidden(_UNFINISHED, step)

    def metadata(self, step: int) -> dict[str, Any]:
        """A checkpoint's metadata.json; raises OSError or ValueError if it cannot be read."""
        return json.loads((self.path(step) / "metadata.json").read_text(encoding="utf-8"))

    def best(self) -> tuple[int, float] | None:
        """Step and metric of the checkpoint with the highest metric (the latest of equals), or None."""
        scored = [(metric, step) for step in self.steps() if (metric := self._metric(step)) is not None]
        return (max(scored)[1], max(scored)[0]) if scored else None

    def begin(self, step: int, array_bytes: int) -> None:
        """Create the empty unfinished folder of a step, and remove leftovers of killed processes.

        Raises OSError if the disk refuses or has too little space, which orbax would report verbosely and late.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        for leftover in self.directory.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for replaced in self.directory.glob(f"{_REPLACED}*"):
            successor = self.directory / replaced.name.removeprefix(_REPLACED)
            if successor.exists():
                shutil.rmtree(replaced, ignore_errors=True)
            else:
                replaced.rename(successor)
        if shutil.disk_usage(self.directory).free < array_bytes + _OVERHEAD_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.directory))
        self.unfinished(step).mkdir()

    def abandon(self, step: int) -> None:
        """Remove the unfinished folder of a step."""
        shutil.rmtree(self.unfinished(step), ignore_errors=True)

    def publish(self, step: int, metadata: Mapping[str, Any]) -> None:
        """Write the metadata and rename the unfinished folder, replacing a checkpoint of the same step."""
        unfinished, replaced = self.unfinished(step), self._hidden(_REPLACED, step)
        _write_json(unfinished / "metadata.json", metadata)
        flush(unfinished)
        target = self.path(step)
        if target.exists():
            target.rename(replaced)
        unfinished.rename(target)
        flush(self.directory)
        shutil.rmtree(replaced, ignore_errors=True)

    def amend(self, step: int, updates: Mapping[str, Any]) -> None:
        """Merge `updates` into a checkpoint's metadata, by atomically replacing the file."""
        folder = self.path(step)
        amended, metadata = folder / ".metadata.part", {**self.metadata(step), **updates}
        _write_json(amended, metadata)
        amended.replace(folder / "metadata.json")
        flush(folder)

    def drop_old(self, saved: int, keep_last: int) -> None:
        """Keep the last checkpoints and the best one.

        A step after the one just saved belongs to a damaged or abandoned history and is removed: otherwise it would be
        taken for the newest.
        """
        for step in self.steps():
            if step > saved:
                self._remove(step)
        best = self.best()
        kept = {*self.steps()[-keep_last:], *([best[0]] if best else [])}
        for step in self.steps():
            if step not in kept:
                self._remove(step)

    def _remove(self, step: int) -> None:
        hidden = self._hidden(f"{_UNFINISHED}removal_of_", step)
        self.path(step).rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)

    def _hidden(self, prefix: str, step: int) -> Path:
        return self.directory / f"{prefix}{_PREFIX}{step:08d}"

    def _metric(self, step: int) -> float | None:
        try:
            metric = self.metadata(step).get("metric")
        except (OSError, ValueError):
            return None
        return metric if metric is not None and math.isfinite(metric) else None


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a file and flush it to the disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(values, file, indent=1)
    flush(path)


def parse_step(name: str) -> int | None:
    """The step in the name of a checkpoint's folder, or None for another name."""
    number = name.removeprefix(_PREFIX)
    return int(number) if name.startswith(_PREFIX) and number.isdigit() else None


def disk_fault(error: BaseException) -> str | None:
    """The reason why the disk refused a write, or None for any other error; tensorstore reports it only as text."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT)
    for code in codes:
        if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
            return os.strerror(code).lower()
    return None
