"""What the data room is told: which set, and how its trajectories are chained."""

import dataclasses
import enum

from ringrl.errors import RingRLError
from ringrl.types import Context


class Source(enum.StrEnum):
    """Where episodes come from."""

    minari = "minari"
    store = "store"


class Order(enum.StrEnum):
    """Order of the trajectories in a chain, by return."""

    ascending = "ascending"
    random = "random"
    descending = "descending"


class Supervise(enum.StrEnum):
    """Whose actions are learnt: every trajectory's, or the last one's."""

    all = "all"
    last = "last"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which episodes to learn from."""

    source: Source = Source.minari
    name: str = ""  # a Minari id, or the folder of an EpisodeStore
    download: bool = False  # fetch a public Minari set that is not on this machine
    top_fraction: float = 1.0  # keep the best episodes of each task by return (BC-10 % keeps 0.1)
    normalize_observations: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.top_fraction <= 1.0:
            raise RingRLError(f"data.top_fraction={self.top_fraction} is not in (0, 1]: 0.1 keeps the best tenth.")


@dataclasses.dataclass(frozen=True)
class ChainConfig:
    """How trajectories become chains (DESIGN.md, section 3; Liu and Abbeel 2023, arXiv 2305.16554)."""

    trajectories: int = 8  # N
    order: Order = Order.ascending
    relabel: bool = True  # every trajectory's target is the best return of the chain, else its own
    supervise: Supervise = Supervise.all
    context: Context = Context.chain
    window_steps: int = 0  # a random window of this many steps of one trajectory (DT's K); 0 takes it whole

    def __post_init__(self) -> None:
        if self.trajectories < 1:
            raise RingRLError(f"chain.trajectories={self.trajectories}: a chain needs at least 1 trajectory.")
        if self.window_steps < 0:
            raise RingRLError(f"chain.window_steps={self.window_steps}: use 0 for whole trajectories.")
        if self.window_steps and self.trajectories != 1:
            raise RingRLError(
                f"chain.window_steps={self.window_steps} cuts windows of one trajectory: set chain.trajectories=1."
            )
