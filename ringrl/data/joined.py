"""Joining of stores: their episodes are concatenated, each store keeps its own tasks, and no column is copied."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ringrl.data.joined_column import JoinedColumn
from ringrl.data.store import EpisodeStore
from ringrl.data.store_format import STEP_COLUMNS
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec, DataSpec

SHARED_METADATA = ("environment", "environment_spec", "ref_min_score", "ref_max_score", "reference_scores")


def join_stores(stores: Sequence[EpisodeStore], names: Sequence[str] | None = None) -> EpisodeStore:
    """Join the episodes of all stores (or views of stores), in order, as one view.

    Tasks are numbered from 0, store after store; `metadata["task_names"]` has their names, prefixed by the `names` of
    the stores (by default their `dataset_id`, else their folder). Metadata of the environment and its reference scores
    are kept if all stores agree on them; `in_environment` selects those of one environment. Raises `RingRLError` naming
    two stores with incompatible observations or actions.
    """
    names = [store_name(store) for store in stores] if names is None else names
    spec = _joined_spec(stores, names)
    policies: dict[str, int] = {}
    task_names: list[str] = []
    episodes: dict[str, list[np.ndarray]] = {
        key: [] for key in ("starts", "lengths", "returns", "task_ids", "policy_ids", "terminated")
    }
    steps_before, joined = 0, []
    for store, name in zip(stores, names, strict=True):
        tasks, task_numbers = np.unique(store.task_ids, return_inverse=True)
        numbers = [policies.setdefault(policy, len(policies)) for policy in store.metadata["policies"]]
        episodes["starts"].append(store.starts + steps_before)
        episodes["task_ids"].append((task_numbers + len(task_names)).astype(np.int32))
        episodes["policy_ids"].append(np.asarray(numbers, np.int32)[store.policy_ids])
        for key in ("lengths", "returns", "terminated"):
            episodes[key].append(getattr(store, key))
        about = {key: store.metadata[key] for key in SHARED_METADATA if store.metadata.get(key) is not None}
        numbers_of_tasks = list(range(len(task_names), len(task_names) + len(tasks)))
        joined.append({"name": name, "fingerprint": store.fingerprint, "tasks": numbers_of_tasks, "about": about})
        task_names += [name] if len(tasks) == 1 else [f"{name}/{task_name(store, task)}" for task in tasks.tolist()]
        steps_before += len(store.rewards)
    columns = {key: JoinedColumn(_parts(store.columns[key] for store in stores)) for key in STEP_COLUMNS}
    content = hashlib.blake2b("".join(store.fingerprint for store in stores).encode(), digest_size=16)
    return EpisodeStore(
        path=Path(" + ".join(str(store.path) for store in stores)),
        metadata={
            **_shared_metadata([store.metadata for store in stores]),
            "policies": list(policies),
            "task_names": task_names,
            "joined": joined,
        },
        spec=spec,
        fingerprint=content.hexdigest(),
        columns=columns,
        folders=tuple(folder for store in stores for folder in store.folders),
        **columns,
        **{key: np.concatenate(arrays) for key, arrays in episodes.items()},  # type: ignore[arg-type]
    )


def in_environment(store: EpisodeStore, environment: str) -> EpisodeStore:
    """Select the episodes of sets made in `environment` (ID or MODULE:ID), with their shared metadata.

    The store is returned unchanged if it is not joined, or if none of its sets names that environment.
    """
    name = environment.rpartition(":")[2]
    if not name:
        return store
    joined = store.metadata.get("joined", [])
    parts = [part for part in joined if part["about"].get("environment", "").rpartition(":")[2] == name]
    episodes = np.isin(store.task_ids, [task for part in parts for task in part["tasks"]])
    if not episodes.any():
        return store
    about = _shared_metadata([part["about"] for part in parts])
    kept = {key: value for key, value in store.metadata.items() if key not in SHARED_METADATA}
    return dataclasses.replace(store.select(episodes), metadata={**kept, **about})


def store_name(store: EpisodeStore) -> str:
    """The name of a store: its `dataset_id`, else its folder."""
    return str(store.metadata.get("dataset_id") or store.path.name)


def task_name(store: EpisodeStore, task_id: int) -> str:
    """The name of a task of a store in its metadata, else its number."""
    names = store.metadata.get("task_names")
    return str(names[task_id]) if isinstance(names, list) and 0 <= task_id < len(names) else str(task_id)


def _parts(columns: Any) -> list[Any]:
    """Mapped columns; joined columns are replaced by their parts."""
    return [part for column in columns for part in (column.parts if isinstance(column, JoinedColumn) else [column])]


def _joined_spec(stores: Sequence[EpisodeStore], names: Sequence[str]) -> DataSpec:
    first = stores[0].spec
    for store, name in zip(stores[1:], names[1:], strict=True):
        sizes = (store.spec.observation_size, store.spec.action.kind, store.spec.action.size)
        if sizes != (first.observation_size, first.action.kind, first.action.size):
            raise RingRLError(
                f"{names[0]} has {_sizes(first)}, {name} has {_sizes(store.spec)}: one model cannot learn both; "
                "join sets of the same sizes."
            )
    action = first.action
    if action.kind is ActionKind.continuous:
        low = np.min([store.spec.action.low for store in stores], axis=0)
        high = np.max([store.spec.action.high for store in stores], axis=0)
        action = ActionSpec(action.kind, action.size, tuple(low.tolist()), tuple(high.tolist()))
    return DataSpec(first.observation_size, action, max(store.spec.max_episode_steps for store in stores))


def _sizes(spec: DataSpec) -> str:
    return f"{spec.observation_size} observations and {spec.action.size} {spec.action.kind} actions"


def _shared_metadata(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Metadata on which all stores agree; empty unless they share the environment with its arguments."""
    first = told[0]
    alike = [key for key in SHARED_METADATA if all(metadata.get(key) == first.get(key) for metadata in told)]
    if not {"environment", "environment_spec"} <= set(alike):
        return {}
    return {key: first[key] for key in alike if first.get(key) is not None}
