"""Checkpoints of a run: which are kept, which is restored, and how damaged ones are handled.

Arrays are written in the background while training continues; `ringrl.training.checkpoint_folder` makes a checkpoint
visible only when complete. With several processes, all of them call `save`, `wait` and `restore` alike on one shared
folder: each writes and reads its own devices' shards, and process 0 does the rest.
"""

import concurrent.futures
import contextlib
import dataclasses
import errno
import functools
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import jax

from ringrl.errors import RingRLError
from ringrl.parallel.multiprocess import is_main_process
from ringrl.training.agreement import agree_any, agree_on_first
from ringrl.training.array_store import (
    ArrayWrite,
    Nested,
    is_key,
    path_names,
    read_arrays,
    stored_shapes,
    to_nested_dicts,
    verify_arrays,
)
from ringrl.training.checkpoint_folder import CheckpointFolder, disk_fault, parse_step
from ringrl.training.state import TrainState
from ringrl.types import Parameters

Which = int | Literal["last", "best"] | None
Warn = Callable[[str], None]

_Result = TypeVar("_Result")
_logger = logging.getLogger(__name__)


class Checkpointer:
    """Saves and restores the checkpoints of one run.

    It keeps the last ones and the one with the highest metric; saving a step drops those of later steps.
    """

    def __init__(self, directory: Path | str, keep_last: int = 2, warn: Warn | None = None) -> None:
        """Configure checkpointing; nothing is written yet.

        Args:
            directory: the folder of checkpoints; a run has them in `checkpoints`.
            keep_last: checkpoints kept besides the best one, at least 1.
            warn: called with one line for each damaged checkpoint that is skipped; by default it is logged.
        """
        self._folder = CheckpointFolder(directory)
        self.directory = self._folder.directory
        self.keep_last = max(keep_last, 1)
        self._warn = warn if warn is not None else _logger.warning
        self._saving: tuple[int, concurrent.futures.Future[None]] | None = None

    def save(self, step: int, state: TrainState, metadata: Mapping[str, Any], metric: float | None = None) -> Path:
        """Begin writing the checkpoint of a step.

        On return the state may be donated. The previous save is finished first; when this one is complete, checkpoints
        no longer kept are dropped.

        Args:
            step: number of the step.
            state: the state to save.
            metadata: plain JSON to save with it.
            metric: higher is better; a checkpoint without one is never the best.

        Returns:
            The checkpoint's future folder.

        Raises:
            RingRLError: the disk is full or not writable, in this save or the previous one; others stay intact.
        """
        self.wait()
        trees = dict(zip(("parameters", "training"), _split(state), strict=True))
        array_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(trees))
        self._in_process_0(step, "save", lambda: self._folder.begin(step, array_bytes))
        target, unfinished = self._folder.path(step), self._folder.unfinished(step)
        try:
            writes = {name: ArrayWrite(unfinished / name, tree) for name, tree in trees.items()}
        except Exception as error:
            self._fail(step, error)
        implementation = str(jax.random.key_impl(state.key))
        record = {**metadata, "step": step, "metric": metric, "key_implementation": implementation}
        self._saving = step, _in_background(lambda: self._finish(step, writes, record))
        return target

    def amend(self, step: int, updates: Mapping[str, Any], metric: float | None) -> None:
        """Update the metadata of a complete checkpoint; the best checkpoint may change.

        A collective. The update is atomic: if the process is killed, the metadata are either old or new.

        Args:
            step: step of the checkpoint.
            updates: plain JSON.
            metric: the checkpoint's new metric.

        Raises:
            RingRLError: the metadata cannot be read or written.
        """
        self.wait()

        def amend() -> None:
            self._folder.amend(step, {**updates, "metric": metric})
            self._folder.drop_old(step, self.keep_last)

        self._in_process_0(step, "add to", amend)

    def wait(self) -> None:
        """Finish the save in progress, if any; raises as `save` does. It is complete once process 0 has waited."""
        if self._saving is None:
            return
        step, saving = self._saving
        error = saving.exception()
        self._saving = None
        if error is not None:
            self._fail(step, error)

    def restore(self, which: Which = "last", like: TrainState | None = None) -> tuple[Any, dict[str, Any]]:
        """Restore state and metadata of a checkpoint; a damaged one is skipped with a one-line warning.

        Args:
            which: a step number, "best" (highest metric), or "last" (also None).
            like: a state, or its `jax.eval_shape`.

        Returns:
            A TrainState of the structure, dtypes and shardings of `like`, whatever devices wrote it, or without it
            nested dictionaries of numpy arrays (a key as its raw data); and the metadata.

        Raises:
            RingRLError: no checkpoint is intact, or the shapes in `like` differ.
        """
        (parameters, training), metadata = self._first_whole(which, ("parameters", "training"), like)
        tree = {"params": parameters, **training}
        return (tree if like is None else _restructure(like, tree, metadata["key_implementation"])), metadata

    def restore_parameters(self, which: Which = "best") -> tuple[Parameters, dict[str, Any]]:
        """Parameters alone (nested dictionaries of numpy arrays) and metadata; raises as `restore` does."""
        (parameters,), metadata = self._first_whole(which, ("parameters",), None)
        return parameters, metadata

    def load_metadata(self, which: Which = "last") -> dict[str, Any]:
        """Metadata alone; raises as `restore` does."""
        _, metadata = self._first_whole(which, (), None)
        return metadata

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending; includes damaged ones, excludes the one in progress."""
        return self._folder.steps()

    def best(self) -> tuple[int, float] | None:
        """Step and metric of the checkpoint with the highest metric (the latest of equals), or None."""
        return self._folder.best()

    def _in_process_0(self, step: int, what: str, act: Callable[[], None]) -> None:
        """Run `act()` in process 0 alone; raises RingRLError in all processes if it fails there."""
        fault = None
        if is_main_process():
            try:
                act()
            except Exception as error:
                fault = error
        failed = agree_any(fault is not None)
        if fault is not None:
            self._fail(step, fault)
        if failed:
            raise RingRLError(
                f"Process 0 cannot {what} the checkpoint of step {step} in {self.directory}; it says why."
            )

    def _finish(self, step: int, writes: Mapping[str, ArrayWrite], record: dict[str, Any]) -> None:
        """Complete the save after the copy of arrays; without collectives (see `ringrl.training.agreement`)."""
        try:
            with contextlib.ExitStack() as finishing:  # all of them, even if one fails
                for write in writes.values():
                    finishing.callback(write.finish)
            # In process 0 a finished write is finished in all processes.
            if is_main_process():
                record["checksums"] = {name: write.checksums() for name, write in writes.items()}
                self._folder.publish(step, record)
                self._folder.drop_old(step, self.keep_last)
        except Exception as error:
            gone = is_main_process() and not self._folder.unfinished(step).exists()
            if is_main_process():
                self._folder.abandon(step)
            if gone:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.directory)) from error
            raise

    def _fail(self, step: int, error: BaseException) -> NoReturn:
        """Raise a disk error as RingRLError, any other error unchanged."""
        reason = disk_fault(error)
        if reason is None:
            raise error
        if reason == os.strerror(errno.ENOENT).lower():
            raise RingRLError(
                f"Cannot save the checkpoint of step {step}: its folder in {self.directory} was removed while it was "
                "written; leave the folders of running commands alone, and resume from the checkpoint before, if it is "
                "there."
            ) from error
        raise RingRLError(
            f"Cannot save the checkpoint of step {step} in {self.directory}: {reason}; "
            "free some space and resume from the checkpoint before."
        ) from error

    def _candidates(self, which: Which) -> list[int]:
        newest_first = self.steps()[::-1]
        if isinstance(which, int):
            return [which]
        best = self.best() if which == "best" else None
        return newest_first if best is None else [best[0], *(step for step in newest_first if step != best[0])]

    def _first_whole(
        self, which: Which, parts: tuple[str, ...], like: TrainState | None
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The first requested checkpoint that all processes read intact; damaged ones are warned about."""
        self.wait()
        candidates = agree_on_first(self._candidates(which))
        for index, step in enumerate(candidates):
            metadata, fault = _agree_on_result(functools.partial(self._verified, step, parts))
            if metadata is not None:
                trees, fault = _agree_on_result(functools.partial(self._read, step, parts, metadata, like))
                if trees is not None:
                    return trees, metadata
            after = f"trying step {candidates[index + 1]}" if index + 1 < len(candidates) else "none is left"
            self._warn(f"Checkpoint {self._folder.path(step)} is damaged or incomplete ({fault}); {after}.")
        asked = f" of step {which}" if isinstance(which, int) else ""
        raise RingRLError(f"No whole checkpoint{asked} in {self.directory}; check the path or train again.")

    def _verified(self, step: int, parts: tuple[str, ...]) -> dict[str, Any]:
        metadata = self._folder.metadata(step)
        checksums = metadata.pop("checksums")
        for part in parts:
            verify_arrays(self._folder.path(step) / part, checksums[part])
        return metadata

    def _read(
        self, step: int, parts: tuple[str, ...], metadata: Mapping[str, Any], like: TrainState | None
    ) -> list[Nested]:
        path = self._folder.path(step)
        shapes = [stored_shapes(path / part) for part in parts]
        targets: list[Nested | None] = [None] * len(parts)
        if like is not None:
            _check_fits(like, {"params": shapes[0], **shapes[1]}, metadata["key_implementation"], path)
            targets = list(_split(like))
        described = zip(parts, shapes, targets, strict=True)
        return [read_arrays(path / part, shape, target) for part, shape, target in described]


def find_checkpoint(path: Path | str, which: Which = "best") -> tuple[Path, Which]:
    """Resolve a run folder, a `checkpoints` folder or one checkpoint's folder to a checkpoint folder and a step.

    Raises RingRLError if the path is none of these.
    """
    folder = Path(path).absolute()
    step = parse_step(folder.name)
    if step is not None:
        return folder.parent, step
    for candidate in (folder / "checkpoints", folder):
        if CheckpointFolder(candidate).steps():
            return candidate, which
    raise RingRLError(f"No checkpoint in {folder}; give a run folder that holds `checkpoints/`.")


def restore_parameters(
    path: Path | str, which: Which = "best", warn: Warn | None = None
) -> tuple[Parameters, dict[str, Any]]:
    """Parameters (numpy) and metadata, given a run folder, its checkpoints folder, or one checkpoint."""
    folder, selected = find_checkpoint(path, which)
    return Checkpointer(folder, warn=warn).restore_parameters(selected)


def load_metadata(path: Path | str, which: Which = "last", warn: Warn | None = None) -> dict[str, Any]:
    """Metadata of a checkpoint, given a run folder, its checkpoints folder, or one checkpoint."""
    folder, selected = find_checkpoint(path, which)
    return Checkpointer(folder, warn=warn).load_metadata(selected)


def _split(state: TrainState) -> tuple[Nested, Nested]:
    """Split a state into parameters and everything else, as nested dictionaries by path."""
    rest = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return to_nested_dicts(rest.pop("params")), to_nested_dicts(rest)


def _by_path(tree: Nested) -> dict[tuple[str, ...], Any]:
    return {path_names(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _check_fits(like: TrainState, shapes: Nested, key_implementation: str, path: Path) -> None:
    """Raise RingRLError if stored arrays are missing or differ in shape or dtype from those in `like`."""
    stored = _by_path(shapes)
    for leaf_path, leaf in jax.tree_util.tree_leaves_with_path(like):
        names = path_names(leaf_path)
        found = stored.get(names)
        if found is not None and is_key(leaf):
            found = jax.eval_shape(lambda raw: jax.random.wrap_key_data(raw, impl=key_implementation), found)
        if found is None or found.shape != leaf.shape or found.dtype != leaf.dtype:
            said = "is absent" if found is None else f"is {found.dtype}{list(found.shape)}"
            raise RingRLError(
                f"The checkpoint {path} is of another model: {'/'.join(names)} {said}, "
                f"here {leaf.dtype}{list(leaf.shape)}; use the configuration it was trained with."
            )


def _restructure(like: TrainState, tree: Nested, key_implementation: str) -> TrainState:
    """The stored arrays, which fit, in the structure of `like`."""
    stored = _by_path(tree)

    def fill(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        value = stored[path_names(path)]
        if is_key(leaf):
            return jax.random.wrap_key_data(value, impl=key_implementation)
        return jax.numpy.asarray(value)  # leaves a jax array in place

    return jax.tree_util.tree_map_with_path(fill, like)


def _in_background(work: Callable[[], None]) -> concurrent.futures.Future[None]:
    pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


def _agree_on_result(work: Callable[[], _Result]) -> tuple[_Result | None, str | None]:
    """The result of `act` if it succeeds in every process, else the first line of the error.

    A RingRLError, which is the same in all of them, is raised.
    """
    result, fault = None, None
    try:
        result = work()
    except RingRLError:
        raise
    except Exception as error:  # orbax and tensorstore raise many kinds for a damaged file
        fault = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
    if agree_any(fault is not None):
        return None, fault or "another process cannot read it"
    return result, None
