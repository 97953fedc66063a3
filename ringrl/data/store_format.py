"""The format of a store: which columns it has, and what its metadata.json says of them."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ringrl.data.columns import REMEDY, make_read_error
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec, DataSpec

VERSION = 1
STEP_COLUMNS = ("observations", "actions", "rewards", "returns_to_go")
EPISODE_DTYPES = {
    "starts": np.dtype(np.int64),
    "lengths": np.dtype(np.int64),
    "returns": np.dtype(np.float64),
    "task_ids": np.dtype(np.int32),
    "policy_ids": np.dtype(np.int32),
    "terminated": np.dtype(bool),
}
EPISODE_COLUMNS = tuple(EPISODE_DTYPES)


def step_columns(observation_size: int, action: ActionSpec) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Dtype and row shape of each step column."""
    discrete = action.kind is ActionKind.discrete
    number = np.dtype(np.float32)
    return {
        "observations": (number, (observation_size,)),
        "actions": (np.dtype(np.int32), ()) if discrete else (number, (action.size,)),
        "rewards": (number, ()),
        "returns_to_go": (number, ()),
    }


def sum_to_go(rewards: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The return-to-go at each step, accumulated from the episode's end in float64: (sum of lengths,)."""
    # All episodes of the same length at once: the same additions in the same order as one by one.
    if (lengths == lengths[0]).all():
        return np.cumsum(rewards.reshape(len(lengths), -1)[:, ::-1], axis=1, dtype=np.float64)[:, ::-1].reshape(-1)
    starts, sums = np.cumsum(lengths) - lengths, np.empty(len(rewards), np.float64)
    by_length = np.argsort(lengths, kind="stable")
    for same in np.split(by_length, np.flatnonzero(np.diff(lengths[by_length])) + 1):
        steps = starts[same][:, None] + np.arange(int(lengths[same[0]]))[::-1]
        sums[steps] = np.cumsum(rewards[steps], axis=1, dtype=np.float64)
    return sums


def spec_to_json(spec: DataSpec) -> dict[str, Any]:
    """The spec as plain numbers, strings and lists."""
    values = dataclasses.asdict(spec)
    values["action"] |= {"kind": spec.action.kind.value, "low": list(spec.action.low), "high": list(spec.action.high)}
    if not spec.action.start:  # omitted for compatibility: fingerprints are computed from this
        del values["action"]["start"]
    return values


def spec_from_json(values: dict[str, Any]) -> DataSpec:
    """The inverse of `spec_to_json`."""
    action = values["action"]
    low, high = tuple(action["low"]), tuple(action["high"])
    return DataSpec(
        observation_size=values["observation_size"],
        action=ActionSpec(ActionKind(action["kind"]), action["size"], low, high, action.get("start", 0)),
        max_episode_steps=values["max_episode_steps"],
    )


def read_metadata(path: Path) -> dict[str, Any]:
    """Read metadata.json of the store in folder `path`; raises `RingRLError` unless it is one of this version."""
    file = path / "metadata.json"
    if not path.is_dir():
        raise RingRLError(f"{path}: there is no such folder; give the folder of an EpisodeStore.")
    if not file.is_file():
        raise RingRLError(f"{path}: not an EpisodeStore, or half a one (no metadata.json); build it again.")
    try:
        metadata = json.loads(file.read_text())
    except OSError as error:
        raise make_read_error(file, error) from error
    except ValueError as error:
        raise RingRLError(f"{file}: not valid JSON ({error}). {REMEDY}") from error
    if not isinstance(metadata, dict) or metadata.get("format") != "ringrl.EpisodeStore":
        raise RingRLError(f"{file}: not an EpisodeStore; a Minari set is opened with data.source=minari.")
    if metadata.get("version") != VERSION:
        raise RingRLError(
            f"{file}: store version {metadata.get('version')}, this RingRL reads version {VERSION}. Use the RingRL "
            "that made it, or import the set again under another name."
        )
    return metadata


def described_columns(
    path: Path, metadata: dict[str, Any]
) -> tuple[DataSpec, dict[str, tuple[np.dtype, tuple[int, ...]]]]:
    """The description of the data in metadata.json, and the expected dtype and shape of each column's file.

    Raises `RingRLError` if a key is missing or the columns are not those of the store's version.
    """
    try:
        spec = spec_from_json(metadata["spec"])
        told = {name: metadata["columns"][name] for name in (*STEP_COLUMNS, *EPISODE_COLUMNS)}
        steps, episodes = (int(told[name]["shape"][0]) for name in ("rewards", "lengths"))
        rows = step_columns(spec.observation_size, spec.action)
        expected = {name: (dtype, (steps, *row)) for name, (dtype, row) in rows.items()}
        expected |= {name: (dtype, (episodes,)) for name, dtype in EPISODE_DTYPES.items()}
        for name, (dtype, shape) in expected.items():
            found = tuple(told[name]["shape"]), told[name]["dtype"]
            if found != (shape, dtype.str):
                raise TypeError(f"{name} of {found[0]} {found[1]}, where {shape} {dtype.str} is expected,")
        if not isinstance(metadata["fingerprint"], str) or not isinstance(metadata["policies"], list):
            raise TypeError("fingerprint or policies")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise RingRLError(f"{path / 'metadata.json'}: {error} is missing or wrong. {REMEDY}") from error
    return spec, expected


def content_fingerprint(digests: dict[str, str], spec: DataSpec, policies: list[str]) -> str:
    """The fingerprint of a store, from the digests of its columns by name."""
    content = hashlib.blake2b(digest_size=16)
    for name, digest in sorted(digests.items()):
        content.update(f"{name}:{digest};".encode())
    content.update(json.dumps([spec_to_json(spec), policies]).encode())
    return content.hexdigest()


def check_episodes(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Raise `RingRLError` unless every episode lies within the step columns, so that no read is out of range."""
    starts, lengths, steps = arrays["starts"], arrays["lengths"], len(arrays["rewards"])
    wrong = (lengths < 1) | (starts < 0) | (starts > steps - lengths)
    if not len(lengths) or wrong.any():
        what = f"episode {int(np.argmax(wrong))} is not within its {steps} steps" if len(lengths) else "no episodes"
        raise RingRLError(f"{path / 'starts.npy'}: {what}. The store at {path} is damaged. {REMEDY}")
