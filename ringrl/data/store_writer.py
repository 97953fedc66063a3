"""Writing an episode store: one pass, bounded memory, all or nothing."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ringrl.data.columns import ColumnWriter, disk_error
from ringrl.data.store import VERSION, EpisodeStore, spec_to_json
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec, DataSpec

BOUND_TOLERANCE = 1e-3  # of the range of an action dimension: what rounding may exceed; such actions are clipped


class EpisodeStoreWriter:
    """Appends episodes to a new store in folder `path`, which appears whole when `finish` is called, or not at all.

    Use it as a context manager: leaving it without `finish` removes what was written. `source` names the data in
    error messages. A folder that appeared meanwhile (another process built the same store) is kept and used.
    """

    def __init__(
        self,
        path: str | Path,
        observation_size: int,
        action: ActionSpec,
        *,
        source: str = "",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.path, self.source, self.metadata = Path(path), source or str(path), dict(metadata or {})
        self.observation_size, self.action = observation_size, action
        discrete = action.kind is ActionKind.discrete
        self._action_shape = () if discrete else (action.size,)
        self._action_dtype = np.dtype(np.int32 if discrete else np.float32)
        low, high = np.asarray(action.low, np.float64), np.asarray(action.high, np.float64)
        with np.errstate(invalid="ignore"):
            slack = np.where(np.isfinite(high - low), BOUND_TOLERANCE * (high - low), 0.0)
        self._low, self._high, self._slack = low, high, slack
        self._seen_low, self._seen_high = np.full(low.shape, np.inf), np.full(low.shape, -np.inf)
        self._episodes: dict[str, list[Any]] = {
            name: [] for name in ("lengths", "returns", "task_ids", "policy_ids", "terminated")
        }
        self._policies: dict[str, int] = {}
        if self.path.exists():
            raise RingRLError(f"{self.path}: already exists. Delete it, or write the store to another folder.")
        with _disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}-", dir=self.path.parent))
            step_columns = {
                "observations": (np.dtype(np.float32), (observation_size,)),
                "actions": (self._action_dtype, self._action_shape),
                "rewards": (np.dtype(np.float32), ()),
                "returns_to_go": (np.dtype(np.float32), ()),
            }
            self._columns = {
                name: ColumnWriter(self._folder / f"{name}.npy", dtype, shape)
                for name, (dtype, shape) in step_columns.items()
            }

    def append(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        *,
        terminated: bool = False,
        task_id: int = 0,
        policy: str = "",
    ) -> None:
        """Append one episode of L steps: observations (L, O) or (L + 1, O), actions (L, A) or (L,), rewards (L,).

        Raises `RingRLError`, naming the episode, for a wrong shape, a value that is not finite (with field and step),
        or an action out of bounds.
        """
        rewards = np.asarray(rewards, np.float32)
        steps = len(rewards)
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is refused below
            observations = np.asarray(observations, np.float32)
        actions = np.asarray(actions)
        self._check_shapes(observations, actions, rewards)
        observations = observations[:steps]
        self._check_finite(observations=observations, actions=actions, rewards=rewards)
        actions = self._checked_actions(actions)
        returns_to_go = np.cumsum(rewards[::-1], dtype=np.float64)[::-1]
        with _disk_errors(self.path):
            for name, values in (
                ("observations", observations),
                ("actions", actions),
                ("rewards", rewards),
                ("returns_to_go", returns_to_go),
            ):
                self._columns[name].append(values)
        episode = {
            "lengths": steps,
            "returns": returns_to_go[0],
            "task_ids": task_id,
            "policy_ids": self._policies.setdefault(policy, len(self._policies)),
            "terminated": terminated,
        }
        for name, value in episode.items():
            self._episodes[name].append(value)

    def finish(self) -> EpisodeStore:
        """Move the store into place and open it; raises `RingRLError` when no episode was appended."""
        if not self._episodes["lengths"]:
            raise RingRLError(f"{self.source}: the set has no episodes, so there is nothing to learn from.")
        with _disk_errors(self.path):
            self._write_episode_columns()
            for column in self._columns.values():
                column.close()
            self._write_metadata()
            self._folder.chmod(0o755)
            try:
                os.rename(self._folder, self.path)
            except OSError:
                if not (self.path / "metadata.json").is_file():
                    raise
                shutil.rmtree(self._folder)
        return EpisodeStore.open(self.path)

    def abort(self) -> None:
        """Remove what was written; nothing happens after `finish`."""
        for column in self._columns.values():
            with contextlib.suppress(OSError):
                column.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "EpisodeStoreWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.abort()

    @property
    def _name(self) -> str:
        return f"{self.source}, episode {len(self._episodes['lengths'])}"

    def _check_shapes(self, observations: np.ndarray, actions: np.ndarray, rewards: np.ndarray) -> None:
        steps = len(rewards)
        if not steps or rewards.ndim != 1:
            raise RingRLError(f"{self._name}: rewards have shape {rewards.shape}, expected (steps,) with steps >= 1.")
        if observations.ndim != 2 or observations.shape[1] != self.observation_size:
            expected = f"expected (steps, {self.observation_size})"
            raise RingRLError(f"{self._name}: observations have shape {observations.shape}, {expected}.")
        if len(observations) not in (steps, steps + 1) or len(actions) != steps:
            raise RingRLError(
                f"{self._name}: {len(observations)} observations, {len(actions)} actions and {steps} rewards; "
                "an episode has one action a reward, and as many observations or one more."
            )
        if actions.shape[1:] != self._action_shape:
            raise RingRLError(
                f"{self._name}: actions have shape {actions.shape}, expected {(steps, *self._action_shape)}."
            )

    def _check_finite(self, **fields: np.ndarray) -> None:
        for name, values in fields.items():
            finite = np.isfinite(values)
            if not finite.all():
                where = np.argwhere(~finite)[0]
                raise RingRLError(
                    f"{self._name}, step {where[0]}: {name} holds {values[tuple(where)]}; "
                    "repair or leave out that episode."
                )

    def _checked_actions(self, actions: np.ndarray) -> np.ndarray:
        if self.action.kind is ActionKind.discrete:
            wrong = (actions < 0) | (actions >= self.action.size) | (actions != np.floor(actions))
            if wrong.any():
                step = int(np.argmax(wrong))
                raise RingRLError(
                    f"{self._name}, step {step}: action {actions[step]} is not one of 0..{self.action.size - 1}."
                )
            return actions.astype(np.int32)
        outside = (actions < self._low - self._slack) | (actions > self._high + self._slack)
        if outside.any():
            step, dimension = np.argwhere(outside)[0]
            raise RingRLError(
                f"{self._name}, step {step}: action {actions[step, dimension]:.6g} in dimension {dimension} is outside "
                f"its bounds [{self._low[dimension]:g}, {self._high[dimension]:g}]; clip or rescale the actions."
            )
        actions = np.clip(actions, self._low, self._high)
        self._seen_low = np.minimum(self._seen_low, actions.min(axis=0))
        self._seen_high = np.maximum(self._seen_high, actions.max(axis=0))
        return actions.astype(np.float32)

    def _write_episode_columns(self) -> None:
        lengths = np.asarray(self._episodes["lengths"], np.int64)
        episodes = {
            "starts": np.cumsum(lengths) - lengths,
            "lengths": lengths,
            "returns": np.asarray(self._episodes["returns"], np.float64),
            "task_ids": np.asarray(self._episodes["task_ids"], np.int32),
            "policy_ids": np.asarray(self._episodes["policy_ids"], np.int32),
            "terminated": np.asarray(self._episodes["terminated"], bool),
        }
        for name, values in episodes.items():
            self._columns[name] = ColumnWriter(self._folder / f"{name}.npy", values.dtype, ())
            self._columns[name].append(values)

    def _write_metadata(self) -> None:
        action = self.action
        if action.kind is ActionKind.continuous:
            # An unbounded dimension is bounded by what was seen: heads with a finite range need one.
            low = np.where(np.isfinite(self._low), self._low, self._seen_low)
            high = np.where(np.isfinite(self._high), self._high, self._seen_high)
            action = ActionSpec(action.kind, action.size, tuple(map(float, low)), tuple(map(float, high)))
        spec = DataSpec(self.observation_size, action, int(max(self._episodes["lengths"])))
        content = hashlib.blake2b(digest_size=16)
        for name, column in sorted(self._columns.items()):
            content.update(f"{name}:{column.digest()};".encode())
        content.update(json.dumps([spec_to_json(spec), list(self._policies)]).encode())
        metadata = {
            **self.metadata,
            "format": "ringrl.EpisodeStore",
            "version": VERSION,
            "source": self.source,
            "episodes": len(self._episodes["lengths"]),
            "steps": self._columns["rewards"].rows,
            "spec": spec_to_json(spec),
            "policies": list(self._policies),
            "columns": {
                name: {"dtype": column.dtype.str, "shape": [column.rows, *column.row_shape]}
                for name, column in self._columns.items()
            },
            "fingerprint": content.hexdigest(),
        }
        (self._folder / "metadata.json").write_text(json.dumps(metadata, indent=1))


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_error(path, error) from error
