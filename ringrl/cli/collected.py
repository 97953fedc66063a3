"""Sinks of collected episodes: a Minari set, or a folder of ExoRL's npz files, written atomically."""

import collections
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import ringrl_envs

from ringrl.cli.console import progress_bar
from ringrl.config import CollectCommand, StorageFormat
from ringrl.data import CollectedEpisode, ExorlWriter, data_root, write_minari_dataset
from ringrl.data.building import BuildFolder, remove_leftovers
from ringrl.data.column_writer import make_write_error
from ringrl.data.minari_writer import check_minari_writable
from ringrl.data.sources.minari_sets import check_minari_id, minari_root
from ringrl.errors import RingRLError
from ringrl.online import OnlineEpisode

RECORD_FILE = "collect.json"  # beside the data: the command that made them
AnyEpisode = ringrl_envs.Episode | OnlineEpisode


class Tally:
    """Counts and returns of the episodes so far, over all and per policy."""

    def __init__(self) -> None:
        self.episodes = 0
        self._returns: list[float] = []
        self._steps = 0
        self._by_policy: dict[str, list[float]] = collections.defaultdict(list)

    def add(self, episode: AnyEpisode) -> None:
        """Add one episode."""
        total = float(episode.rewards.sum())
        self.episodes += 1
        self._returns.append(total)
        self._steps += len(episode.rewards)
        self._by_policy[episode.policy.split("(")[0]].append(total)

    def statistics(self) -> dict[str, Any]:
        """The statistics as plain JSON."""
        returns = np.array(self._returns)
        return {
            "episodes": len(returns),
            "steps": self._steps,
            "mean_return": float(returns.mean()),
            "best_return": float(returns.max()),
            "policies": {
                name: {"episodes": len(values), "mean_return": float(np.mean(values))}
                for name, values in self._by_policy.items()
            },
        }


class Sink(Protocol):
    """Protocol of a receiver of episodes."""

    physics: bool  # whether it needs the simulator's state

    def add(self, episode: AnyEpisode) -> None:
        """Add one episode."""
        ...

    def finish(self, **metadata: Any) -> Path:
        """Move the set into place; returns its folder."""
        ...

    def abort(self) -> None:
        """Remove the written files; no effect after `finish`."""
        ...


class MinariSink:
    """Keeps episodes in memory and writes them at the end."""

    physics = False

    def __init__(self, command: CollectCommand, environments: Any) -> None:
        check_minari_writable(command.dataset, data_root())
        self.command = command
        self.spaces = environments.single_observation_space, environments.single_action_space
        self.episodes: list[CollectedEpisode] = []

    def add(self, episode: AnyEpisode) -> None:
        """Add one episode."""
        ended = episode.terminated if isinstance(episode, OnlineEpisode) else bool(episode.terminations[-1])
        self.episodes.append(
            CollectedEpisode(
                observations=episode.observations,
                actions=episode.actions,
                rewards=episode.rewards,
                terminated=bool(ended),
                task_id=episode.task_id,
                policy=episode.policy,
                seed=episode.seed,
            )
        )

    def finish(self, **metadata: Any) -> Path:
        """Write the Minari set."""
        command = self.command
        with progress_bar("writing") as advance:
            return write_minari_dataset(
                command.dataset,
                self.episodes,
                cache_root=data_root(),
                observation_space=self.spaces[0],
                action_space=self.spaces[1],
                data_format=command.format.value,
                overwrite=command.overwrite,
                progress=advance,
                **metadata,
            )

    def abort(self) -> None:
        """No effect: nothing is on disk."""


class ExorlSink:
    """Writes every episode immediately to a hidden folder, which `finish` moves into place."""

    physics = True

    def __init__(self, command: CollectCommand, environments: Any) -> None:
        domain = command.dataset.split("/")[0]
        if not command.env.id.startswith(f"ringrl/dmc_{domain}_") or "task" in command.env.kwargs:
            raise RingRLError(
                f"format=exorl with dataset={command.dataset}: collect in an environment of that domain, such as "
                f"env.id=ringrl/dmc_{domain}_..., whose task its id says; env.id={command.env.id} is not."
            )
        del environments
        self.target, self._overwrite = find_target(command), command.overwrite
        try:
            remove_leftovers(self.target)
            self._building = BuildFolder(self.target)
        except OSError as error:
            raise make_write_error(self.target, error) from error
        self._writer = ExorlWriter(self._building.folder / "buffer")

    def add(self, episode: AnyEpisode) -> None:
        """Write one episode."""
        assert episode.physics is not None, "every environment of dm_control tells its state"
        ended = episode.terminated if isinstance(episode, OnlineEpisode) else bool(episode.terminations[-1])
        self._writer.append(episode.observations, episode.actions, episode.rewards, episode.physics, bool(ended))

    def finish(self, **metadata: Any) -> Path:
        """Move the folder into place; npz files have no place for metadata."""
        del metadata
        try:
            self._building.place(replace=self._overwrite)
        except OSError as error:
            raise make_write_error(self.target, error) from error
        return self.target

    def abort(self) -> None:
        """Remove the hidden folder."""
        self._building.remove()


def make_sink(command: CollectCommand, environments: Any) -> Sink:
    """Create the sink of the requested format."""
    return (ExorlSink if command.format is StorageFormat.exorl else MinariSink)(command, environments)


def find_target(command: CollectCommand) -> Path:
    """The set's folder; raises RingRLError for a name that is invalid in its format."""
    if command.format is not StorageFormat.exorl:
        check_minari_id(command.dataset)
        return minari_root(data_root()) / command.dataset
    parts = command.dataset.split("/")
    if len(parts) != 2 or not all(part and not part.startswith(".") for part in parts):
        raise RingRLError(f"dataset={command.dataset}: with format=exorl write DOMAIN/COLLECTOR, such as walker/rnd.")
    return data_root() / "exorl" / command.dataset
