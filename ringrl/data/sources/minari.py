"""Episodes of a Minari data set (arrow, parquet or HDF5), through Minari's own storage classes."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ringrl.data.store import EpisodeStore
from ringrl.data.store_writer import EpisodeStoreWriter
from ringrl.errors import RingRLError
from ringrl.types import ActionKind

Progress = Callable[[int, int], None]  # (done, total)
_EPISODES_AT_ONCE = 256
_KEPT_METADATA = ("ref_min_score", "ref_max_score", "reference_scores", "dataset_id", "algorithm_name", "description")


def minari_root(cache_root: Path) -> Path:
    """Where Minari sets live: MINARI_DATASETS_PATH where it is set, else `cache_root/minari`."""
    chosen = os.environ.get("MINARI_DATASETS_PATH")
    return Path(chosen) if chosen else cache_root / "minari"


@contextlib.contextmanager
def minari_environment(root: Path) -> Iterator[None]:
    """Make Minari's own functions use `root`."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(root)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def check_minari_id(name: str) -> None:
    """Raise `RingRLError` unless `name` has the form that Minari accepts."""
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        parse_dataset_id(name)
    except (ValueError, TypeError) as error:
        raise RingRLError(
            f"data.name={name!r} is not a Minari id: write namespace/name-v0, the namespace of 2 letters or more."
        ) from error


def find_minari_set(name: str, root: Path, download: bool) -> Path:
    """The set's data folder; fetches a public set when `download` is true, raises `RingRLError` when there is none."""
    check_minari_id(name)
    folder = root / name / "data"
    if not folder.parent.exists():
        if not download:
            raise RingRLError(
                f"Minari set {name} is not in {root}: make it with `ringrl collect`, or set data.download=true "
                "to fetch a public one."
            )
        import minari

        try:
            with minari_environment(root):
                minari.download_dataset(name)
        except Exception as error:  # Minari lets through whatever its hosts' clients raise
            raise RingRLError(f"Minari set {name} cannot be downloaded: {_one_line(error)}.") from error
    if not (folder / "metadata.json").is_file():
        raise _damaged(name, folder, "metadata.json is missing")
    return folder


def minari_key(folder: Path) -> str:
    """A short key that changes with the set: of its metadata and of the sizes and times of its largest parts."""
    metadata = folder / "metadata.json"
    key = hashlib.blake2b(metadata.read_bytes(), digest_size=5)
    for file in (metadata, folder / "main_data.hdf5", folder / "0"):
        if file.exists():
            status = file.stat()
            key.update(f"{file.name}:{status.st_size}:{status.st_mtime_ns};".encode())
    return key.hexdigest()


def build_from_minari(name: str, folder: Path, store_path: Path, progress: Progress | None = None) -> EpisodeStore:
    """Read the Minari set in `folder` once and write it as a store in `store_path`.

    Observations of Box, Discrete and nested Dict or Tuple spaces are flattened as gymnasium does. The task of an
    episode is `task_id` in its metadata, its reset options or its infos, else 0; its policy is `policy` there.
    Raises `RingRLError` in one line for a damaged set, an unsupported space, or a faulty episode (with its number).
    """
    import minari

    from ringrl.data.sources.spaces import action_spec, flatten_observations, observation_size

    source = f"Minari set {name}"
    try:
        dataset = minari.MinariDataset(folder)
        storage, metadata = dataset.storage, dataset.storage.metadata
    except Exception as error:  # whatever the damage makes Minari's parsers raise
        raise _damaged(name, folder, _one_line(error)) from error
    size = observation_size(dataset.observation_space, source)
    action = action_spec(dataset.action_space, source)
    kept = {key: metadata[key] for key in _KEPT_METADATA if metadata.get(key) is not None}
    if dataset.env_spec is not None:
        kept |= {"environment": dataset.env_spec.id, "environment_spec": metadata["env_spec"]}
    total = int(metadata["total_episodes"])
    if not total:
        raise RingRLError(f"{source} in {folder}: the set has no episodes; collect it again.")
    with EpisodeStoreWriter(store_path, size, action, source=source, metadata=kept) as writer:
        for done, (episode, told) in enumerate(_episodes(name, folder, storage, total)):
            observations = flatten_observations(dataset.observation_space, episode["observations"])
            rewards = np.asarray(episode["rewards"]).reshape(-1)
            actions = np.asarray(episode["actions"])
            writer.append(
                observations,
                actions.reshape(len(rewards), -1) if action.kind is ActionKind.continuous else actions.reshape(-1),
                rewards,
                terminated=bool(np.asarray(episode["terminations"]).reshape(-1)[-1:].any()),
                task_id=int(_told(episode, told, "task_id", 0)),
                policy=str(_told(episode, told, "policy", "")),
            )
            if progress is not None:
                progress(done + 1, total)
        return writer.finish()


def _episodes(name: str, folder: Path, storage: Any, total: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Episodes with their metadata, a few at a time (Minari opens all those asked for at once)."""
    for first in range(0, total, _EPISODES_AT_ONCE):
        indices = range(first, min(first + _EPISODES_AT_ONCE, total))
        episodes = None
        for index in indices:
            try:
                if episodes is None:
                    episodes = zip(storage.get_episodes(indices), storage.get_episode_metadata(indices), strict=True)
                pair = next(episodes)
            except Exception as error:  # h5py, pyarrow and json each have their own
                raise _damaged(name, folder, f"episode {index}: {_one_line(error)}") from error
            yield pair


def _told(episode: dict[str, Any], metadata: dict[str, Any], key: str, default: Any) -> Any:
    for place in (metadata, metadata.get("options"), episode.get("infos")):
        if isinstance(place, dict) and place.get(key) is not None:
            return np.asarray(place[key]).reshape(-1)[0]
    return default


def _damaged(name: str, folder: Path, what: str) -> RingRLError:
    return RingRLError(
        f"Minari set {name} in {folder} is damaged or half-downloaded ({what}): delete that folder, "
        "then collect or download it again."
    )


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
