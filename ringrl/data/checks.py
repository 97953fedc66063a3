"""Validation of a store: its files, episodes and steps, and that its contents have not changed since it was written."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np

from ringrl.data.column_writer import content_hash, described_digest, raw_bytes
from ringrl.data.columns import MappedColumn
from ringrl.data.store import EpisodeStore
from ringrl.data.store_format import (
    EPISODE_COLUMNS,
    STEP_COLUMNS,
    content_fingerprint,
    described_columns,
    read_metadata,
    sum_to_go,
)
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, DataSpec

CHUNK_STEPS = 1 << 16  # read at a time, or one episode
TOLERANCE = 1e-6  # of the sum, or the episode's largest reward: tolerated error of a recorded sum


@dataclasses.dataclass(frozen=True)
class Violation:
    """One violation of a store's format; as a string, one line."""

    file: Path
    episode: int | None
    step: int | None  # within the episode; of the whole column if that is unknown
    field: str | None
    what: str

    def __str__(self) -> str:
        where = [str(self.file)]
        where += [f"{name} {value}" for name in ("episode", "step") if (value := getattr(self, name)) is not None]
        return f"{', '.join([*where, *filter(None, [self.field])])}: {self.what}"


def check_store(
    store: EpisodeStore | Path | str,
    *,
    limit: int = 20,
    content: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[Violation]:
    """The first `limit` violations over all episodes in the folders of a store, including those outside a view.

    For each episode and field the first invalid step is reported. With `content` the fingerprint is recomputed from the
    columns. Memory is bounded by the longest episode. `progress(done, total)` counts steps.
    """
    folders = store.folders if isinstance(store, EpisodeStore) else (Path(store),)
    found = itertools.chain.from_iterable(_folder_violations(folder, content, progress) for folder in folders)
    return list(itertools.islice(found, limit))


def _folder_violations(path: Path, content: bool, progress: Callable[[int, int], None] | None) -> Iterator[Violation]:
    file = path / "metadata.json"
    try:
        metadata = read_metadata(path)
        spec, shapes = described_columns(path, metadata)
    except RingRLError as error:
        yield Violation(file, None, None, None, _without_path(error, file, path))
        return
    columns: dict[str, MappedColumn] = {}
    for name, (dtype, shape) in shapes.items():
        column = path / f"{name}.npy"
        try:
            columns[name] = MappedColumn(column, dtype, shape)
        except RingRLError as error:
            yield Violation(column, None, None, name, _without_path(error, column))
    if len(columns) < len(shapes):
        return
    faults = list(_offset_violations(columns))
    yield from faults
    yield from _episode_violations(columns, metadata, spec)
    hashes = {name: content_hash() for name in columns} if content else {}
    yield from _step_violations(columns, spec, hashes, located=not faults, progress=progress)
    if content:
        for name in EPISODE_COLUMNS:
            hashes[name].update(raw_bytes(columns[name].array))
        digests = {name: described_digest(hashes[name], dtype, shape[1:]) for name, (dtype, shape) in shapes.items()}
        found = content_fingerprint(digests, spec, metadata["policies"])
        if found != metadata["fingerprint"]:
            what = f"is {metadata['fingerprint']}, of these columns it would be {found}: they have changed since"
            yield Violation(file, None, None, "fingerprint", what)


def _offset_violations(columns: dict[str, MappedColumn]) -> Iterator[Violation]:
    """Check that episodes are contiguous and cover all steps; otherwise the episode of a step is unknown."""
    starts, lengths = columns["starts"].array, columns["lengths"].array
    steps = len(columns["rewards"].array)
    if not len(lengths):
        yield Violation(columns["lengths"].path, None, None, "lengths", "there are no episodes")
        return
    for episode in np.flatnonzero(lengths < 1).tolist():
        what = f"is {lengths[episode]}, an episode has at least 1 step"
        yield Violation(columns["lengths"].path, episode, None, "lengths", what)
    expected = np.append(0, starts + lengths)
    for episode in np.flatnonzero(starts != expected[:-1]).tolist():
        how = "overlap" if starts[episode] < expected[episode] else "are left out"
        what = f"is {starts[episode]} where the episode before ends at {expected[episode]}: steps {how}"
        yield Violation(columns["starts"].path, episode, None, "starts", what)
    if expected[-1] != steps:
        what = f"ends at step {expected[-1]} of the {steps} in the columns"
        yield Violation(columns["lengths"].path, len(lengths) - 1, None, "lengths", what)


def _episode_violations(
    columns: dict[str, MappedColumn], metadata: dict[str, Any], spec: DataSpec
) -> Iterator[Violation]:
    names = metadata.get("task_names")
    tasks = len(names) if isinstance(names, list) else 1 << 31
    for field, count in (("task_ids", tasks), ("policy_ids", len(metadata["policies"]))):
        values = columns[field].array
        for episode in np.flatnonzero((values < 0) | (values >= count)).tolist():
            yield Violation(columns[field].path, episode, None, field, f"is {values[episode]}, not in 0..{count - 1}")
    longest = int(columns["lengths"].array.max(initial=0))
    if longest != spec.max_episode_steps:
        what = f"is {spec.max_episode_steps}, the longest episode has {longest} steps"
        yield Violation(columns["lengths"].path.with_name("metadata.json"), None, None, "max_episode_steps", what)
    ended = columns["terminated"].array.view(np.uint8)
    for episode in np.flatnonzero(ended > 1).tolist():
        what = f"is the byte {ended[episode]}, neither true nor false"
        yield Violation(columns["terminated"].path, episode, None, "terminated", what)


def _step_violations(
    columns: dict[str, MappedColumn],
    spec: DataSpec,
    hashes: dict[str, Any],
    *,
    located: bool,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Violation]:
    """Violations of the steps, which are also added to `hashes`; sums of rewards only if episodes are `located`."""
    starts, lengths = (np.array(columns[name].array) for name in ("starts", "lengths"))
    total = len(columns["rewards"].array)
    with ThreadPoolExecutor(max_workers=2) as pool:
        for episodes, begin, end in _chunks(lengths, total, located):
            chunk = {name: columns[name].array[begin:end] for name in STEP_COLUMNS}
            hashing = [
                pool.submit(hashes[name].update, raw_bytes(values)) for name, values in chunk.items() if name in hashes
            ]
            faults = _value_faults(chunk, spec)
            if located:
                faults |= _sum_faults(chunk, columns["returns"].array[episodes], lengths[episodes])
            for field, (wrong, describe) in faults.items():
                steps = np.flatnonzero(wrong)
                if located:  # the first of each episode
                    which = np.searchsorted(starts, begin + steps, side="right") - 1
                    which, first = np.unique(which, return_index=True)
                    pairs = zip(which.tolist(), steps[first].tolist(), strict=True)
                else:
                    pairs = ((None, step) for step in steps.tolist())
                for episode, step in pairs:
                    place = begin + step - (starts[episode] if episode is not None else 0)
                    place = None if field == "returns" else int(place)
                    yield Violation(columns[field].path, episode, place, field, describe(step))
            wait(hashing)
            for name in STEP_COLUMNS:
                columns[name].release()
            if progress is not None:
                progress(end, total)


def _chunks(lengths: np.ndarray, total: int, located: bool) -> Iterator[tuple[slice, int, int]]:
    """Chunks of whole episodes if they are located, with their steps; else chunks of steps alone."""
    if not located:
        for begin in range(0, total, CHUNK_STEPS):
            yield slice(0, 0), begin, min(total, begin + CHUNK_STEPS)
        return
    ends = np.cumsum(lengths)
    cuts = [0, *(np.flatnonzero(np.diff(ends // CHUNK_STEPS)) + 1).tolist(), len(lengths)]
    for first, last in itertools.pairwise(cuts):
        yield slice(first, last), int(ends[first] - lengths[first]), int(ends[last - 1])


Fault = tuple[np.ndarray, Callable[[int], str]]  # (S,) where a step of the chunk is invalid, and its description


def _value_faults(chunk: dict[str, np.ndarray], spec: DataSpec) -> dict[str, Fault]:
    """Non-finite numbers, and actions out of bounds."""
    faults: dict[str, Fault] = {}

    def note(name: str, wrong: np.ndarray, expected: str) -> None:
        values = chunk[name].reshape(len(wrong), -1)
        wrong = np.asarray(wrong.reshape(len(wrong), -1))

        def describe(step: int) -> str:
            dimension = int(np.argmax(wrong[step]))
            where = f" in dimension {dimension}" if chunk[name].ndim > 1 else ""
            return f"holds {values[step, dimension]:g}{where}, {expected}"

        faults[name] = np.any(wrong, axis=1), describe

    for name in ("observations", "rewards"):
        finite = np.isfinite(chunk[name])
        if not finite.all():
            note(name, ~finite, "not a finite number")
    actions = chunk["actions"]
    if spec.action.kind is ActionKind.discrete:
        note("actions", (actions < 0) | (actions >= spec.action.size), f"not one of 0..{spec.action.size - 1}")
    else:
        low, high = (np.asarray(bound, np.float32) for bound in (spec.action.low, spec.action.high))
        note("actions", ~((actions >= low) & (actions <= high)), "out of its bounds")
    return faults


def _sum_faults(chunk: dict[str, np.ndarray], returns: np.ndarray, lengths: np.ndarray) -> dict[str, Fault]:
    """Returns-to-go and returns that differ from the sums of the rewards."""
    sums, first = sum_to_go(chunk["rewards"], lengths), np.cumsum(lengths) - lengths
    recorded = np.full(len(sums), np.nan)
    recorded[first] = returns
    largest = np.repeat(np.maximum.reduceat(np.abs(chunk["rewards"]).astype(np.float64), first), lengths)
    tolerance = TOLERANCE * np.maximum(np.abs(sums), largest) + np.finfo(np.float32).smallest_subnormal

    def differ(values: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return ~(np.abs(values - sums) <= tolerance) & np.isfinite(sums)

    wrong_returns = np.zeros(len(sums), bool)
    wrong_returns[first] = differ(recorded)[first]
    return {
        "returns_to_go": (
            differ(chunk["returns_to_go"]),
            lambda step: f"is {chunk['returns_to_go'][step]:g}, the rewards from here on add up to {sums[step]:g}",
        ),
        "returns": (wrong_returns, lambda step: f"is {recorded[step]:g}, its rewards add up to {sums[step]:g}"),
    }


def _without_path(error: RingRLError, *paths: Path) -> str:
    text = str(error)
    for path in paths:
        text = text.removeprefix(f"{path}: ")
    return text
