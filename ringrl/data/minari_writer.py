"""Atomic writing of a Minari data set."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ringrl.data.building import BuildFolder, remove_leftovers
from ringrl.data.column_writer import make_write_error
from ringrl.data.minari_hdf5 import FILE_NAME, write_minari_hdf5
from ringrl.data.sources.minari import Progress
from ringrl.data.sources.minari_sets import check_minari_id, minari_environment, minari_root
from ringrl.errors import RingRLError

if TYPE_CHECKING:
    from gymnasium import Space
    from gymnasium.envs.registration import EnvSpec

_EPISODES_AT_ONCE = 128


@dataclasses.dataclass(frozen=True, eq=False)
class CollectedEpisode:
    """One collected episode of L steps, with the policy that made it."""

    observations: np.ndarray  # (L + 1, ...) in the environment's observation space (or a dictionary of such)
    actions: np.ndarray  # (L, ...)
    rewards: np.ndarray  # (L,)
    terminated: bool  # ended by the environment; else truncated by a time limit
    task_id: int = 0
    policy: str = ""
    seed: int | None = None


def write_minari_dataset(
    dataset_id: str,
    episodes: Sequence[CollectedEpisode],
    *,
    cache_root: Path,
    observation_space: "Space",
    action_space: "Space",
    env_spec: "EnvSpec | None" = None,
    environment_name: str | None = None,
    environment_unrecorded: Sequence[str] = (),
    ref_min_score: float | None = None,
    ref_max_score: float | None = None,
    reference_scores: dict[str, float] | None = None,
    description: str = "",
    algorithm_name: str = "",
    data_format: str = "hdf5",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the episodes as the Minari set `dataset_id` and return its folder (`minari_root(cache_root)/dataset_id`).

    `minari.load_dataset` opens it (with MINARI_DATASETS_PATH at that root) and `minari.get_normalized_score` works when
    both reference scores are given. Each episode's metadata holds `task_id`, `policy` and `seed`, and its reset options
    hold `task_id`. `environment_name` is the requested id, MODULE:ID if a module registers it, and
    `environment_unrecorded` names what `env_spec` lacks because JSON cannot represent it. Raises `RingRLError` for an
    id that exists (unless `overwrite`), an id that Minari does not accept, no episodes, an episode whose lengths
    disagree, and a full disk; an interrupted write leaves no set, and the next write removes the leftovers of a killed
    one.
    """
    check_minari_id(dataset_id)
    root = minari_root(Path(cache_root))
    target = root / dataset_id
    if target.exists() and not overwrite:
        raise RingRLError(f"Minari set {dataset_id} exists in {root}: choose another name, or set overwrite=true.")
    if not episodes:
        raise RingRLError(f"Minari set {dataset_id}: there are no episodes to write.")
    for index, episode in enumerate(episodes):
        _check_lengths(dataset_id, index, episode)
    metadata = {
        "dataset_id": dataset_id,
        "algorithm_name": algorithm_name,
        "description": description,
        "author": {"ringrl"},
        "author_email": set(),
        "code_permalink": "",
        "ref_min_score": ref_min_score,
        "ref_max_score": ref_max_score,
        "reference_scores": reference_scores,
        "environment_name": environment_name,
        "environment_unrecorded": list(environment_unrecorded) or None,
    }
    try:
        remove_leftovers(target)
        build = BuildFolder(target)  # a hidden folder, which Minari does not list
        try:
            spaces = (observation_space, action_space)
            _write(build.folder / "data", episodes, spaces, env_spec, data_format, metadata, progress)
            _make_namespaces(root, dataset_id)
            build.place(replace=overwrite)
        finally:
            build.remove()
    except OSError as error:
        raise make_write_error(target, error) from error
    return target


def check_minari_writable(dataset_id: str, cache_root: Path) -> None:
    """Raise `RingRLError` if the set cannot be written; call it before the episodes are made."""
    import minari.data_collector  # noqa: F401  a broken installation fails here

    target = minari_root(Path(cache_root)) / dataset_id
    try:
        remove_leftovers(target)
        missing = [parent for parent in target.parents if not parent.exists()]
        BuildFolder(target).remove()
        with contextlib.suppress(OSError):  # another process may be writing there
            for parent in missing:  # innermost first
                parent.rmdir()
    except OSError as error:
        raise make_write_error(target, error) from error


def _write(
    folder: Path,
    episodes: Sequence[CollectedEpisode],
    spaces: "tuple[Space, Space]",
    env_spec: "EnvSpec | None",
    data_format: str,
    metadata: dict[str, Any],
    progress: Progress | None,
) -> None:
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    storage = MinariStorage.new(folder, *spaces, env_spec, data_format, jpeg_encoding=False)
    given = {key: value for key, value in metadata.items() if value is not None}
    storage.update_metadata(given | {"minari_version": minari.__version__})
    # The arrow storage measures the whole folder after every episode, which is quadratic: measure once, at the end.
    storage.get_size = lambda: 0.0
    for first in range(0, len(episodes), _EPISODES_AT_ONCE):
        part = episodes[first : first + _EPISODES_AT_ONCE]
        if data_format == "hdf5":
            write_minari_hdf5(folder / FILE_NAME, map(_hdf5_episode, part), first)
        else:
            storage.update_episodes(EpisodeBuffer(**_buffer(episode)) for episode in part)
            storage.update_episode_metadata([_told(episode) for episode in part], range(first, first + len(part)))
        if progress is not None:
            progress(first + len(part), len(episodes))
    del storage.get_size
    storage.update_metadata(
        {
            "total_episodes": len(episodes),
            "total_steps": sum(len(episode.rewards) for episode in episodes),
            "dataset_size": float(storage.get_size()),
        }
    )


def _buffer(episode: CollectedEpisode) -> dict[str, Any]:
    ends = np.arange(len(episode.rewards)) == len(episode.rewards) - 1
    return {
        "seed": episode.seed,
        "options": {"task_id": int(episode.task_id)},
        "observations": episode.observations,
        "actions": episode.actions,
        "rewards": np.asarray(episode.rewards, np.float64),
        "terminations": ends & bool(episode.terminated),
        "truncations": ends & (not episode.terminated),
        "infos": {},  # Minari cannot print an HDF5 episode without
    }


def _told(episode: CollectedEpisode) -> dict[str, Any]:
    return {"task_id": int(episode.task_id), "policy": episode.policy}


def _hdf5_episode(episode: CollectedEpisode) -> tuple[dict[str, Any], dict[str, int | str]]:
    """Arrays and attributes under the names of Minari's own storage."""
    arrays = _buffer(episode)
    seed, options = arrays.pop("seed"), arrays.pop("options")
    attributes = {} if seed is None else {"seed": int(seed)}
    attributes |= {f"options/{name}": value for name, value in options.items()}
    return arrays, {**attributes, "total_steps": len(episode.rewards), **_told(episode)}


def _check_lengths(dataset_id: str, index: int, episode: CollectedEpisode) -> None:
    steps, observations = len(episode.rewards), episode.observations
    while isinstance(observations, dict | tuple):
        observations = next(iter(observations.values() if isinstance(observations, dict) else observations))
    if not steps or len(episode.actions) != steps or len(observations) != steps + 1:
        raise RingRLError(
            f"Minari set {dataset_id}, episode {index}: {len(observations)} observations, {len(episode.actions)} "
            f"actions and {steps} rewards; an episode has one action a reward and one observation more."
        )


def _make_namespaces(root: Path, dataset_id: str) -> None:
    from minari.namespace import create_namespace, list_local_namespaces

    namespace = dataset_id.rpartition("/")[0]
    with minari_environment(root):
        if namespace and namespace not in list_local_namespaces():
            create_namespace(namespace)
