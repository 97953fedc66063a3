"""Configuration of the data: which set, and how its trajectories form chains."""

import dataclasses
import enum
import math

from ringrl.errors import RingRLError, parse_choice
from ringrl.types import Context


class Source(enum.StrEnum):
    """Source of episodes."""

    minari = "minari"
    store = "store"


class Order(enum.StrEnum):
    """Order of the trajectories in a chain, by return."""

    ascending = "ascending"
    random = "random"
    descending = "descending"


class Supervise(enum.StrEnum):
    """Whose actions are learned: those of every trajectory, or of the last one."""

    all = "all"
    last = "last"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which episodes to learn from."""

    source: Source = Source.minari
    name: str = ""  # a Minari id, or an EpisodeStore: its folder, or its name in the data cache
    also: list[str] = dataclasses.field(default_factory=list)  # further sets, joined to it, each with tasks of its own
    download: bool = False  # fetch a public Minari set that is not on this machine
    tasks: list[int] = dataclasses.field(default_factory=list)  # keep the episodes of these tasks; empty keeps all
    min_length: int = 0  # keep episodes of at least this many steps
    max_length: int | None = None  # keep episodes of at most this many steps
    min_return: float | None = None  # keep episodes of at least this return
    max_return: float | None = None  # keep episodes of at most this return
    top_fraction: float = 1.0  # then keep the best of each task by return (BC-10 % keeps 0.1)
    normalize_observations: bool = True  # scale observations to mean 0 and deviation 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", parse_choice("data.source", self.source, Source))
        if not 0.0 < self.top_fraction <= 1.0:
            raise RingRLError(f"data.top_fraction={self.top_fraction} is not in (0, 1]: 0.1 keeps the best tenth.")
        names = [self.name, *self.also]
        if self.also and not all(names):
            raise RingRLError(f"data.also={self.also} with data.name={self.name!r}: an empty name is no set.")
        twice = [name for index, name in enumerate(names) if name in names[:index]]
        if twice:
            raise RingRLError(f"data.also={self.also}: {twice[0]} is there twice; name every set once.")
        if len(set(self.tasks)) < len(self.tasks) or any(task < 0 for task in self.tasks):
            raise RingRLError(f"data.tasks={self.tasks}: give each task's number, from 0 on, once.")
        if self.min_length < 0:
            raise RingRLError(f"data.min_length={self.min_length}: use 0 for episodes of any length.")
        if self.max_length is not None and self.max_length < max(1, self.min_length):
            raise RingRLError(
                f"data.max_length={self.max_length} is less than {max(1, self.min_length)}: no episode is so short."
            )
        for key in ("min_return", "max_return"):
            value = getattr(self, key)
            if value is not None and math.isnan(value):
                raise RingRLError(f"data.{key}=nan: give a number, or null for any return.")
        if self.min_return is not None and self.max_return is not None and self.min_return > self.max_return:
            raise RingRLError(f"data.min_return={self.min_return} is above data.max_return={self.max_return}.")


@dataclasses.dataclass(frozen=True)
class ChainConfig:
    """How trajectories become chains (docs/chains.md; Liu and Abbeel 2023, arXiv 2305.16554)."""

    trajectories: int = 8  # trajectories in a chain (N)
    order: Order = Order.ascending
    relabel: bool = True  # every trajectory's target is the best return of the chain instead of its own
    supervise: Supervise = Supervise.all
    context: Context = Context.chain
    window_steps: int = 0  # a random window of this many steps of one trajectory (DT's K); 0 takes all steps

    def __post_init__(self) -> None:
        for name, choices in (("order", Order), ("supervise", Supervise), ("context", Context)):
            object.__setattr__(self, name, parse_choice(f"chain.{name}", getattr(self, name), choices))
        if self.trajectories < 1:
            raise RingRLError(f"chain.trajectories={self.trajectories}: a chain needs at least 1 trajectory.")
        if self.window_steps < 0:
            raise RingRLError(f"chain.window_steps={self.window_steps}: use 0 for whole trajectories.")
        if self.window_steps and self.trajectories != 1:
            raise RingRLError(
                f"chain.window_steps={self.window_steps} cuts windows of one trajectory: set chain.trajectories=1."
            )
