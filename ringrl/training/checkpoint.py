"""Checkpoints of a run: which are kept, which is read, and what happens to damaged ones.

    checkpoints/
      step_00000500/
        parameters/     arrays, orbax
        training/       optimiser state, step, key, counters, orbax
        metadata.json   what the caller gave, plus step, metric and a checksum per file

A checkpoint is written beside its place under a hidden name and renamed when whole, so an interrupted save
leaves nothing that looks like one.
"""

import dataclasses
import errno
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax

from ringrl.errors import RingRLError
from ringrl.training.array_store import Nested, is_key, nested, path_names, read_arrays, write_arrays
from ringrl.training.state import TrainState
from ringrl.types import Parameters

Which = int | Literal["last", "best"] | None
Warn = Callable[[str], None]

_PREFIX = "step_"
_UNFINISHED = ".unfinished_"
_OVERHEAD_BYTES = 1 << 16  # of a checkpoint besides its arrays
_logger = logging.getLogger(__name__)


class Checkpointer:
    """Saves and restores the checkpoints of one run.

    Kept are the last `keep_last` (at least 1) and the one with the highest metric; saving a step drops those of later
    steps, so the folder tells one history. `warn` is told, in one line,
    of a damaged checkpoint that is passed over.
    """

    def __init__(self, directory: Path | str, keep_last: int = 2, warn: Warn | None = None) -> None:
        self.directory = Path(directory).absolute()
        self.keep_last = max(keep_last, 1)
        self._warn = warn if warn is not None else _logger.warning

    def save(self, step: int, state: TrainState, metadata: Mapping[str, Any], metric: float | None = None) -> Path:
        """Write the checkpoint of a step whole, then drop those no longer kept; returns its folder.

        `metadata` is plain JSON. Raises RingRLError where the disk is full or cannot be written; the checkpoints
        already there stay whole.
        """
        target = self.directory / f"{_PREFIX}{step:08d}"
        unfinished = self.directory / f"{_UNFINISHED}{target.name}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for leftover in self.directory.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(leftover, ignore_errors=True)
            parameters, training = _split(state)
            _check_space(self.directory, (parameters, training))
            unfinished.mkdir()
            checksums = {
                "parameters": write_arrays(unfinished / "parameters", parameters),
                "training": write_arrays(unfinished / "training", training),
            }
            implementation = str(jax.random.key_impl(state.key))
            record = {**metadata, "step": step, "metric": metric, "key_implementation": implementation}
            record["checksums"] = checksums
            _write_json(unfinished / "metadata.json", record)
            shutil.rmtree(target, ignore_errors=True)
            unfinished.rename(target)
        except Exception as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            reason = _disk_fault(error)
            if reason is None:
                raise
            raise RingRLError(
                f"Cannot save the checkpoint of step {step} in {self.directory}: {reason}; "
                "free some space and resume from the checkpoint before."
            ) from error
        self._drop_old(step)
        return target

    def restore(self, which: Which = "last", like: TrainState | None = None) -> tuple[Any, dict[str, Any]]:
        """State and metadata of a checkpoint: a step number, "best" (highest metric), or "last" (also None).

        With `like` (a state, or its `jax.eval_shape`) a TrainState of that structure, dtypes and shardings,
        else nested dictionaries of numpy arrays (a key as its raw data). A damaged checkpoint is named in one
        warning and the next one is used. Raises RingRLError where none is whole, or `like` has another shape.
        """
        (parameters, training), metadata = self._first_whole(which, ("parameters", "training"), like)
        tree = {"params": parameters, **training}
        if like is None:
            return tree, metadata
        return _into(like, tree, metadata["key_implementation"], self.directory), metadata

    def restore_parameters(self, which: Which = "best") -> tuple[Parameters, dict[str, Any]]:
        """Parameters alone (nested dictionaries of numpy arrays) and metadata; faults as `restore`."""
        (parameters,), metadata = self._first_whole(which, ("parameters",), None)
        return parameters, metadata

    def load_metadata(self, which: Which = "last") -> dict[str, Any]:
        """Metadata alone; faults as `restore`."""
        _, metadata = self._first_whole(which, (), None)
        return metadata

    def steps(self) -> list[int]:
        """Steps that have a checkpoint folder, ascending, whole or not."""
        names = (path.name.removeprefix(_PREFIX) for path in self.directory.glob(f"{_PREFIX}*") if path.is_dir())
        return sorted(int(name) for name in names if name.isdigit())

    def best(self) -> tuple[int, float] | None:
        """Step and metric of the checkpoint with the highest metric (the latest of equals), or None."""
        scored = [(metric, step) for step in self.steps() if (metric := self._metric(step)) is not None]
        return (max(scored)[1], max(scored)[0]) if scored else None

    def _path(self, step: int) -> Path:
        return self.directory / f"{_PREFIX}{step:08d}"

    def _metric(self, step: int) -> float | None:
        try:
            metric = _read_metadata(self._path(step)).get("metric")
        except (OSError, ValueError):
            return None
        return metric if metric is not None and math.isfinite(metric) else None

    def _drop_old(self, saved: int) -> None:
        # A later step is what a damaged or abandoned course left: kept, it would pass for the newest.
        for step in self.steps():
            if step > saved:
                shutil.rmtree(self._path(step), ignore_errors=True)
        best = self.best()
        kept = {*self.steps()[-self.keep_last :], *([best[0]] if best else [])}
        for step in self.steps():
            if step not in kept:
                shutil.rmtree(self._path(step), ignore_errors=True)

    def _candidates(self, which: Which) -> list[int]:
        newest_first = self.steps()[::-1]
        if isinstance(which, int):
            return [which]
        best = self.best() if which == "best" else None
        return newest_first if best is None else [best[0], *(step for step in newest_first if step != best[0])]

    def _first_whole(
        self, which: Which, parts: tuple[str, ...], like: TrainState | None
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The first checkpoint asked for that reads back whole; damaged ones are warned of."""
        candidates = self._candidates(which)
        targets: dict[str, Nested] = {}
        if like is not None:
            targets["parameters"], targets["training"] = _split(like)
        for index, step in enumerate(candidates):
            path = self._path(step)
            try:
                metadata = _read_metadata(path)
                checksums = metadata.pop("checksums")
                trees = [read_arrays(path / part, checksums[part], targets.get(part)) for part in parts]
                return trees, metadata
            except Exception as error:  # orbax and tensorstore raise many kinds for a damaged file
                after = f"trying step {candidates[index + 1]}" if index + 1 < len(candidates) else "none is left"
                self._warn(f"Checkpoint {path} is damaged or incomplete ({_first_line(error)}); {after}.")
        asked = f" of step {which}" if isinstance(which, int) else ""
        raise RingRLError(f"No whole checkpoint{asked} in {self.directory}; check the path or train again.")


def find_checkpoint(path: Path | str, which: Which = "best") -> tuple[Path, Which]:
    """Folder of checkpoints and which one, from a run folder, a `checkpoints` folder or one checkpoint's folder.

    Raises RingRLError where the path is none of these.
    """
    folder = Path(path).absolute()
    if folder.name.removeprefix(_PREFIX).isdigit() and folder.name.startswith(_PREFIX):
        return folder.parent, int(folder.name.removeprefix(_PREFIX))
    for candidate in (folder / "checkpoints", folder):
        if any(candidate.glob(f"{_PREFIX}*")):
            return candidate, which
    raise RingRLError(f"No checkpoint in {folder}; give a run folder that holds `checkpoints/`.")


def restore_parameters(
    path: Path | str, which: Which = "best", warn: Warn | None = None
) -> tuple[Parameters, dict[str, Any]]:
    """Parameters (numpy) and metadata from a run folder, its checkpoints folder, or one checkpoint."""
    folder, selected = find_checkpoint(path, which)
    return Checkpointer(folder, warn=warn).restore_parameters(selected)


def load_metadata(path: Path | str, which: Which = "last", warn: Warn | None = None) -> dict[str, Any]:
    """Metadata of a checkpoint of a run folder, its checkpoints folder, or one checkpoint."""
    folder, selected = find_checkpoint(path, which)
    return Checkpointer(folder, warn=warn).load_metadata(selected)


def _split(state: TrainState) -> tuple[Nested, Nested]:
    """Parameters, and all the rest, as nested dictionaries by path."""
    rest = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return nested(rest.pop("params")), nested(rest)


def _into(like: TrainState, tree: Nested, key_implementation: str, directory: Path) -> TrainState:
    """The stored arrays in the structure of `like`; raises RingRLError where they do not fit it."""
    stored = {path_names(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}

    def fill(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        names = path_names(path)
        value = stored.get(names)
        if value is not None and is_key(leaf):
            value = jax.random.wrap_key_data(value, impl=key_implementation)
        if value is None or value.shape != leaf.shape or value.dtype != leaf.dtype:
            found = "is absent" if value is None else f"is {value.dtype}{list(value.shape)}"
            raise RingRLError(
                f"The checkpoint in {directory} is of another model: {'/'.join(names)} {found}, "
                f"here {leaf.dtype}{list(leaf.shape)}; use the configuration it was trained with."
            )
        return jax.numpy.asarray(value)

    return jax.tree_util.tree_map_with_path(fill, like)


def _read_metadata(path: Path) -> dict[str, Any]:
    return json.loads((path / "metadata.json").read_text(encoding="utf-8"))


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _check_space(directory: Path, trees: Any) -> None:
    """Raise OSError where the arrays would not fit on the disk: orbax reports a full one at length."""
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(trees)) + _OVERHEAD_BYTES
    if shutil.disk_usage(directory).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))


def _disk_fault(error: Exception) -> str | None:
    """Why the disk refused a write, or None for any other fault; tensorstore reports it in words alone."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
    for code in codes:
        if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
            return os.strerror(code).lower()
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
