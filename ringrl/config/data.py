"""Configuration of `ringrl collect`, `ringrl import` and `ringrl data`."""

import dataclasses
import enum

from ringrl.config.checks import check_name, check_seed
from ringrl.config.train import EnvConfig
from ringrl.data.config import DataConfig
from ringrl.errors import RingRLError, check_least
from ringrl.evaluation.config import Split
from ringrl.online.config import SacConfig


class StorageFormat(enum.StrEnum):
    """Storage format of a collected set: Minari's two formats, or ExoRL's folder of npz files, with physics."""

    hdf5 = "hdf5"
    arrow = "arrow"
    exorl = "exorl"


class BehaviorKind(enum.StrEnum):
    """The kind of policy that collects data."""

    random = "random"
    ou = "ou"  # Ornstein-Uhlenbeck noise: temporally correlated actions
    scripted = "scripted"  # the environment's own controller, of graded quality: mixed with random actions
    detour = "detour"  # the same with detours: random places on the way
    checkpoint = "checkpoint"  # a trained RingRL agent, or actors saved by a learner
    sac = "sac"  # learns while collecting: its own stream of episodes, from random to its best
    rnd = "rnd"  # the same, but rewarded for novelty: data without a task

    @property
    def learns(self) -> bool:
        """Whether this kind learns while collecting."""
        return self in (BehaviorKind.sac, BehaviorKind.rnd)


@dataclasses.dataclass(frozen=True)
class BehaviorConfig:
    """One policy of a mix."""

    kind: BehaviorKind = BehaviorKind.scripted
    weight: float = 1.0  # weight of the policy's share of the episodes, relative to the others
    quality: float | None = None  # of the controller: 0 random, 1 its best; None draws it for every episode
    checkpoint: str = ""  # kind=checkpoint: a run folder; an actor's .npz, or a folder of them, all with equal shares

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise RingRLError(f"behavior weight={self.weight} must not be negative; 0 leaves the policy out.")
        if self.quality is not None and not 0.0 <= self.quality <= 1.0:
            raise RingRLError(f"behavior quality={self.quality} is not in [0, 1]; null draws it for every episode.")
        if (self.kind == BehaviorKind.checkpoint) != bool(self.checkpoint):
            raise RingRLError("behavior.NAME.checkpoint=RUN goes with kind=checkpoint, and kind=checkpoint with it.")


@dataclasses.dataclass(frozen=True)
class CollectCommand:
    """`ringrl collect`: a data set from an environment and a mix of behavior policies."""

    dataset: str  # the Minari id to write, such as ringrl/dark_room-v0; with format=exorl <domain>/<collector>
    name: str = "collect"  # part of the run folder's name
    seed: int = 0  # of the environments and of the policies
    debug: bool = False  # tracebacks instead of one-line errors
    env: EnvConfig = dataclasses.field(default_factory=EnvConfig)
    behavior: dict[str, BehaviorConfig] = dataclasses.field(default_factory=dict)  # name -> policy
    split: Split = Split.training
    episodes_per_task: int = 100  # episodes of each task, or in all where there are no tasks
    num_environments: int = 64  # run in parallel
    longest_episode: int = 10_000  # steps; a longer one in an environment without a time limit ends the command
    format: StorageFormat = StorageFormat.hdf5  # arrow: one folder per episode
    steps: int = 20_000  # behavior=sac or rnd: environment steps of learning; their episodes form the set
    sac: SacConfig = dataclasses.field(default_factory=SacConfig)
    reference_episodes: int = 256  # per reference score (random, expert); 0 leaves them out
    overwrite: bool = False  # replace a data set of the same id
    reuse: bool = False  # keep a data set of the same id if it was collected by the same command
    description: str = ""  # free text that the set's metadata keep

    def __post_init__(self) -> None:
        check_name(self.name)
        check_seed(self.seed)
        if not self.env.id:
            raise RingRLError("env.id is needed: choose env=NAME, or give env.id=ENVIRONMENT_ID.")
        check_least("", self, {"episodes_per_task": 1, "num_environments": 1, "longest_episode": 1})
        check_least("", self, {"reference_episodes": 0})
        if not any(behavior.weight > 0 for behavior in self.behavior.values()):
            raise RingRLError("behavior names no policy with a positive weight: choose behavior=graded, for one.")
        learners = [name for name, behavior in self.behavior.items() if behavior.kind.learns and behavior.weight > 0]
        if learners and sum(behavior.weight > 0 for behavior in self.behavior.values()) > 1:
            raise RingRLError(f"behavior.{learners[0]} learns as it collects: it cannot share a set with others.")
        if learners and self.steps < 1:
            raise RingRLError(f"steps={self.steps}: a learner needs at least 1.")
        if self.overwrite and self.reuse:
            raise RingRLError("overwrite=true and reuse=true exclude each other.")

    @property
    def learner(self) -> BehaviorKind | None:
        """The learner that collects, if any."""
        kinds = [behavior.kind for behavior in self.behavior.values() if behavior.weight > 0 and behavior.kind.learns]
        return kinds[0] if kinds else None


class ImportSource(enum.StrEnum):
    """The format of external data."""

    d4rl = "d4rl"
    exorl = "exorl"
    minari = "minari"


class Rewards(enum.StrEnum):
    """Source of the rewards of an ExoRL set."""

    as_recorded = "as_recorded"
    relabel = "relabel"  # rewards of `task`, computed from the recorded physics


@dataclasses.dataclass(frozen=True)
class ImportCommand:
    """`ringrl import`: convert external data to an episode store."""

    source: ImportSource
    path: str  # d4rl: an HDF5 file; exorl: a folder of npz files, or <domain>/<collector> as collected; minari: an id
    name: str = ""  # of the store: data=store data.name=NAME finds it
    task: str = ""  # d4rl: such as hopper-medium-v2, else taken from the file's name; exorl: such as walker_stand
    reward: Rewards = Rewards.relabel  # exorl
    limit: int | None = None  # exorl: number of episodes to read, from the first
    workers: int = 0  # exorl: processes that read and relabel; 0 uses all cores
    download: bool = False  # minari: fetch a public set that is not on this machine
    overwrite: bool = False  # replace a store of the same name
    debug: bool = False  # tracebacks instead of one-line errors

    def __post_init__(self) -> None:
        if not self.name:
            raise RingRLError("name is needed, of the store to make: give name=NAME.")
        check_name(self.name)
        if not self.path:
            raise RingRLError("path is needed: an HDF5 file, a folder of npz files, or a Minari id.")
        if self.source is ImportSource.exorl and not self.task:
            raise RingRLError("source=exorl needs task=DOMAIN_TASK, such as task=walker_stand.")
        others = {"limit": self.limit, "workers": self.workers, "reward": self.reward is not Rewards.relabel}
        foreign = {
            ImportSource.d4rl: others | {"download": self.download},
            ImportSource.exorl: {"download": self.download},
            ImportSource.minari: others | {"task": self.task},
        }
        for key, given in foreign[self.source].items():
            if given:
                raise RingRLError(f"{key} means nothing with source={self.source}: leave it out.")
        if self.workers < 0:
            raise RingRLError(f"workers={self.workers}: use 0 for all cores, or a number of processes.")
        if self.limit is not None and self.limit < 1:
            raise RingRLError(f"limit={self.limit}: use at least 1 episode, or null for all.")


@dataclasses.dataclass(frozen=True)
class DataCommand:
    """`ringrl data`: list all data; with data.name=... the contents of a set, as a run with these keys reads it."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    name: str = "data"  # part of the run folder
    check: bool = True  # check every value of the set
    debug: bool = False  # tracebacks instead of one-line errors

    def __post_init__(self) -> None:
        check_name(self.name)
