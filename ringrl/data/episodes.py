"""Episode stores built from episodes in memory."""

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from ringrl.data.columns import MappedColumn
from ringrl.data.sources.spaces import action_spec, renumber_actions
from ringrl.data.store import EpisodeStore
from ringrl.data.store_writer import EpisodeStoreWriter
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec

SOURCE = "from_episodes"  # the name in errors
NEEDED = ("observations", "actions", "rewards")
ENDS = {"terminated": "terminations", "truncated": "truncations"}  # Minari's names are accepted too
FIELDS = (*NEEDED, *ENDS, *ENDS.values(), "task_id", "policy")


def store_episodes(
    episodes: Iterable[Any],
    *,
    action_space: gymnasium.Space | None,
    path: str | Path | None,
    overwrite: bool,
    metadata: Mapping[str, Any] | None,
) -> EpisodeStore:
    """See `EpisodeStore.from_episodes`."""
    if path is not None:
        return _written(episodes, Path(path), action_space, overwrite, metadata)
    folder = _TemporaryFolder()
    store = _written(episodes, folder.path / "episodes", action_space, overwrite, metadata)
    for column in store.columns.values():
        assert isinstance(column, MappedColumn)
        column.keeper = folder  # views and joined stores share the columns
    return store


class _TemporaryFolder:
    """A folder that is removed when this object is no longer referenced, at the latest when Python exits."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="ringrl-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _written(
    episodes: Iterable[Any],
    path: Path,
    action_space: gymnasium.Space | None,
    overwrite: bool,
    metadata: Mapping[str, Any] | None,
) -> EpisodeStore:
    numbered = enumerate(episodes)
    index, first = next(numbered, (0, None))
    if first is None:
        raise RingRLError(f"{SOURCE}: there are no episodes, so there is nothing to learn from.")
    name, fields = _read(0, first)
    size = np.shape(fields["observations"])[1:]
    if len(size) != 1:
        raise RingRLError(f"{name}: observations have shape {np.shape(fields['observations'])}, expected (steps, O).")
    spec = _infer_spec(name, fields["actions"]) if action_space is None else action_spec(action_space, SOURCE)
    with EpisodeStoreWriter(
        path, size[0], spec, source=SOURCE, metadata=dict(metadata or {}), overwrite=overwrite
    ) as writer:
        _append(writer, name, fields, spec, action_space)
        for index, episode in numbered:
            _append(writer, *_read(index, episode), spec, action_space)
        return writer.finish()


def _read(index: int, episode: Any) -> tuple[str, dict[str, Any]]:
    """The episode's name in errors, and its fields by name."""
    name = f"{SOURCE}, episode {index}"
    if isinstance(episode, Mapping):
        fields = dict(episode)
        unknown = [field for field in fields if field not in FIELDS]
        if unknown:
            raise RingRLError(f"{name}: unknown field {unknown[0]!r}; the fields are {', '.join(FIELDS)}.")
    else:
        fields = {field: getattr(episode, field) for field in FIELDS if hasattr(episode, field)}
    missing = [field for field in NEEDED if field not in fields]
    if missing:
        raise RingRLError(
            f"{name} has no {missing[0]}: give a dictionary or an object with {', '.join(NEEDED)}, "
            f"not {type(episode).__name__}."
        )
    for field in NEEDED:
        try:
            fields[field] = np.asarray(fields[field])
        except ValueError as error:
            raise RingRLError(f"{name}: {field} are no array of numbers ({error}).") from error
    return name, fields


def _infer_spec(name: str, actions: np.ndarray) -> ActionSpec:
    """An action spec of real vectors bounded by the data; a number of discrete actions cannot be inferred."""
    if actions.ndim == 1 and actions.dtype.kind in "biu":
        raise RingRLError(
            f"{name}: actions are whole numbers, one a step: say how many there are to choose from, such as "
            "action_space=gymnasium.spaces.Discrete(5)."
        )
    if actions.ndim != 2:
        raise RingRLError(
            f"{name}: actions have shape {actions.shape}, expected (steps, A): reshape them, or give the environment's "
            "action_space."
        )
    unbounded = (np.inf,) * actions.shape[1]
    return ActionSpec(ActionKind.continuous, actions.shape[1], tuple(-bound for bound in unbounded), unbounded)


def _append(
    writer: EpisodeStoreWriter,
    name: str,
    fields: Mapping[str, Any],
    spec: ActionSpec,
    action_space: gymnasium.Space | None,
) -> None:
    actions = fields["actions"]
    if isinstance(action_space, gymnasium.spaces.Box) and actions.ndim and actions.shape[1:] == action_space.shape:
        actions = actions.reshape(len(actions), spec.size)
    task_id = fields.get("task_id", 0)
    if not isinstance(task_id, int | np.integer) or isinstance(task_id, bool):
        raise RingRLError(f"{name}: task_id={task_id!r}: number the tasks from 0.")
    ended = {field: _is_ended(name, fields, field, fields["rewards"].size) for field in ENDS}
    writer.append(
        fields["observations"],
        renumber_actions(spec, actions),
        fields["rewards"],
        terminated=ended["terminated"],
        task_id=int(task_id),
        policy=str(fields.get("policy", "")),
    )


def _is_ended(name: str, fields: Mapping[str, Any], field: str, steps: int) -> bool:
    """Whether the last step ends the episode in this way; raises RingRLError if an earlier one does."""
    found = [key for key in (field, ENDS[field]) if key in fields]
    if not found:
        return False
    flags = np.asarray(fields[found[0]])
    if flags.dtype.kind not in "biu" or flags.shape not in ((), (steps,)):
        raise RingRLError(
            f"{name}: {found[0]} are {flags.dtype} of shape {flags.shape}, expected one bool, or one a step ({steps})."
        )
    if flags.ndim and flags[:-1].any():
        raise RingRLError(
            f"{name}, step {int(np.argmax(flags))}: {found[0]} before the last step: cut the episode there."
        )
    return bool(flags.reshape(-1)[-1:].any())
