"""Import of a Minari data set (arrow, parquet or HDF5) into an episode store."""

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ringrl.data.reference_scores import reference_of_minari
from ringrl.data.sources.minari_sets import damaged_set, format_error
from ringrl.data.store import EpisodeStore
from ringrl.data.store_writer import EpisodeStoreWriter
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec

Progress = Callable[[int, int], None]  # (done, total)
BATCH_BYTES = 8 << 20  # of observations read per write
STEP_BUDGET = 100_000  # an unreached time limit of at least this was the collector's, not the environment's
READER = b"2"  # incremented when the store built from a set changes
_KEPT_METADATA = ("ref_min_score", "ref_max_score", "reference_scores", "dataset_id", "algorithm_name", "description")


def minari_key(folder: Path) -> str:
    """A short key that changes with the set: a hash of its metadata and of the sizes and times of its largest parts."""
    metadata = folder / "metadata.json"
    key = hashlib.blake2b(READER + metadata.read_bytes(), digest_size=5)
    for file in (metadata, folder / "main_data.hdf5", folder / "0"):
        if file.exists():
            status = file.stat()
            key.update(f"{file.name}:{status.st_size}:{status.st_mtime_ns};".encode())
    return key.hexdigest()


def build_from_minari(
    name: str, folder: Path, store_path: Path, progress: Progress | None = None, *, overwrite: bool = False
) -> EpisodeStore:
    """Read the Minari set in `folder` once and write it as a store in `store_path`.

    Observations of Box, Discrete and nested Dict or Tuple spaces are flattened in the order of `sources.spaces`. The
    task of an episode is `task_id` in its metadata, its reset options or its infos, else 0, a number or a name as in
    `sources.labels`; its policy is `policy` there. The environment is the set's evaluation environment, else the one it
    was recorded in. Raises `RingRLError` in one line for a damaged set, one that cannot be read for another reason, an
    unsupported space, or a faulty episode (with its number).
    """
    from ringrl.data.sources.labels import number_tasks, to_label
    from ringrl.data.sources.minari_episodes import open_minari_files
    from ringrl.data.sources.spaces import action_spec, observation_size

    source = f"Minari set {name}"
    storage, metadata = _open(name, folder)
    size = observation_size(storage.observation_space, source)
    action = action_spec(storage.action_space, source)
    total = int(metadata["total_episodes"])
    with contextlib.ExitStack() as stack:
        try:
            kept = _kept_metadata(metadata)
            files = stack.enter_context(open_minari_files(folder, storage))
        except Exception as error:  # errors of h5py, pyarrow and json
            raise _unread(name, folder, error) from error
        if files.count != total:
            raise damaged_set(name, folder, f"metadata.json counts {total} episodes, its files hold {files.count}")
        if not total:
            raise RingRLError(f"{source} in {folder}: the set has no episodes; collect it again.")
        writer = stack.enter_context(
            EpisodeStoreWriter(store_path, size, action, source=source, metadata=kept, overwrite=overwrite)
        )
        batch, labels = _Batch(), []
        for index in range(total):
            try:
                episode = files.read(index)
                batch.add(episode, storage.observation_space, action)
                labels.append(to_label(episode.told.get("task_id")))
            except Exception as error:  # any error of those libraries
                raise _unread(name, folder, error, f"episode {index}: ") from error
            if batch.bytes >= BATCH_BYTES or index == total - 1:
                batch.write(writer)
                batch = _Batch()
            if progress is not None:
                progress(index + 1, total)
        writer.set_tasks(*number_tasks(labels))
        return writer.finish()


class _Batch:
    """Episodes read from a set's files and not yet written to a store."""

    def __init__(self) -> None:
        self.bytes = 0
        self._steps: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._told: list[tuple[bool, str]] = []

    def add(self, episode: Any, space: Any, action: ActionSpec) -> None:
        """Add a `MinariEpisode` of that observation space; raises Contradiction if its arrays are inconsistent."""
        from ringrl.data.sources.labels import policy_name
        from ringrl.data.sources.spaces import Contradiction, flatten_observations, renumber_actions

        observations = flatten_observations(space, episode.observations)
        steps, actions = len(episode.rewards), episode.actions
        if not steps:
            raise ValueError("it has no steps")
        if len(observations) not in (steps, steps + 1) or len(actions) != steps:
            raise Contradiction(f"{len(observations)} observations, {len(actions)} actions and {steps} rewards")
        discrete = action.kind is ActionKind.discrete
        if actions.size != steps * (1 if discrete else action.size):
            raise Contradiction(f"actions have shape {actions.shape}, expected {action.size} numbers a step")
        actions = renumber_actions(action, actions.reshape(-1)) if discrete else actions.reshape(steps, -1)
        self._steps.append((observations[:steps], actions, episode.rewards))
        self._told.append((episode.terminated, policy_name(episode.told.get("policy"))))
        self.bytes += observations.nbytes

    def write(self, writer: EpisodeStoreWriter) -> None:
        """Append them all."""
        observations, actions, rewards = (np.concatenate(column) for column in zip(*self._steps, strict=True))
        terminated, policies = zip(*self._told, strict=True)
        lengths = np.array([len(step[2]) for step in self._steps])
        writer.append_many(
            *(observations, actions, rewards, lengths),
            terminated=np.array(terminated),
            policies=policies,
        )


def _open(name: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    """Minari's storage of the set, which has the spaces, and the set's metadata."""
    import minari
    from minari.dataset.minari_storage import MinariStorage

    try:
        metadata = json.loads((folder / "metadata.json").read_bytes())
        needed = ["data_format", "total_episodes", "minari_version"]
        needed += [] if metadata.get("env_spec") else ["observation_space", "action_space"]
        missing = [key for key in needed if key not in metadata]
        if missing:
            raise damaged_set(name, folder, f"metadata.json lacks {missing[0]!r}")
        if metadata["minari_version"] not in minari.supported_dataset_versions:
            raise RingRLError(
                f"Minari set {name} was written by Minari {metadata['minari_version']}, which the installed "
                f"{minari.__version__} does not read: fetch a later version of the set."
            )
        _check_count(name, folder, metadata)
        _check_spaces(name, metadata)
        return MinariStorage.read(folder), metadata
    except RingRLError:
        raise
    except Exception as error:  # any error of Minari's parsers
        raise _unread(name, folder, error) from error


def _check_count(name: str, folder: Path, metadata: dict[str, Any]) -> None:
    try:
        int(metadata["total_episodes"])
    except (TypeError, ValueError) as error:
        raise damaged_set(name, folder, f"total_episodes: {error}") from error


def _check_spaces(name: str, metadata: dict[str, Any]) -> None:
    """Raise `RingRLError` for a space that Minari does not support (its own error is uninformative)."""
    from minari.serialization import deserialize_space

    def check(space: dict[str, Any]) -> None:
        if space["type"] not in deserialize_space.registry:
            raise RingRLError(f"Minari set {name}: {space['type']} spaces are not supported; use Box or Dict.")
        parts = space.get("subspaces", ())
        for part in parts.values() if isinstance(parts, dict) else parts:
            check(part)

    for key in ("observation_space", "action_space"):
        if key in metadata:
            check(json.loads(metadata[key]))


def _kept_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata kept in the store: the set's name, its environment and its reference scores."""
    kept = {key: metadata[key] for key in _KEPT_METADATA if metadata.get(key) is not None}
    specs = [_environment_spec(metadata[key]) for key in ("eval_env_spec", "env_spec") if metadata.get(key)]
    if specs:
        if specs[0]["max_episode_steps"] and specs[0]["max_episode_steps"] >= max(
            STEP_BUDGET, int(metadata.get("total_steps", 0))
        ):
            specs[0]["max_episode_steps"] = None
        kept |= {"environment": _environment_name(metadata, specs[0]["id"]), "environment_spec": specs[0]}
        if lost := metadata.get("environment_unrecorded"):
            specs[0]["unrecorded"] = [str(name) for name in lost]
        if specs[-1] is not specs[0]:
            kept["recorded_environment_spec"] = specs[-1]
    if not {"ref_min_score", "ref_max_score"} <= set(kept):
        scores = reference_of_minari(metadata.get("dataset_id", ""))
        if scores is not None and _pays_once(specs[0]["kwargs"] if specs else {}):
            kept["ref_min_score"], kept["ref_max_score"] = scores
    return kept


def _environment_name(metadata: dict[str, Any], env_id: str) -> str:
    """MODULE:ID if `ringrl collect` was given that; else the id."""
    told = metadata.get("environment_name")
    return told if isinstance(told, str) and told.rpartition(":")[2] == env_id else env_id


def _environment_spec(text: str | dict[str, Any]) -> dict[str, Any]:
    """A gymnasium `EnvSpec` in JSON as a dictionary with `id`, `kwargs` and `max_episode_steps` at least."""
    spec = json.loads(text) if isinstance(text, str) else text
    limit = spec.get("max_episode_steps")
    return spec | {
        "id": spec["id"],
        "kwargs": spec.get("kwargs") or {},
        "max_episode_steps": None if limit is None else int(limit),  # some sets have 1000000.0
    }


def _pays_once(kwargs: dict[str, Any]) -> bool:
    """Whether an environment rewards a goal or a task once, as D4RL's reference scores of 0..1 and 0..4 assume.

    Minari's AntMaze sets were recorded in mazes that continue and give a reward at every step in the goal, its Kitchen
    sets in kitchens that give a reward for a completed task at every step.
    """
    goes_on = "maze_map" in kwargs and kwargs.get("continuing_task", True)
    return not goes_on and kwargs.get("remove_task_when_completed", True)


def _unread(name: str, folder: Path, error: Exception, where: str = "") -> RingRLError:
    """One line for a failed read; a set is called damaged only if the error shows that."""
    if isinstance(error, RingRLError):
        return error
    what = where + format_error(error)
    if _shows_damage(error):
        return damaged_set(name, folder, what)
    if isinstance(error, OSError):
        return RingRLError(f"Minari set {name} in {folder} cannot be read now ({what}): see that its files are free.")
    return RingRLError(
        f"Minari set {name} in {folder} cannot be read ({what}); nothing shows that it is damaged, so keep it: see "
        f"whether minari.load_dataset({name!r}) opens it, and what RingRL reads in docs/data.md."
    )


def _shows_damage(error: Exception) -> bool:
    """Whether the error cannot occur with files that were written completely."""
    from ringrl.data.sources.spaces import Contradiction

    if isinstance(error, OSError):
        # System errors have an errno, even if HDF5 reports them; format errors have none.
        return isinstance(error, FileNotFoundError) or (error.errno is None and "errno" not in str(error))
    invalid = type(error).__name__ == "ArrowInvalid"  # pyarrow's error, without importing pyarrow
    return invalid or isinstance(error, Contradiction | json.JSONDecodeError | UnicodeDecodeError | EOFError)
