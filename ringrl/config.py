"""What each command of the command line is told: the rooms' dataclasses gathered, and the checks that cross rooms."""

import dataclasses
import enum
from typing import Any

from ringrl.agents.config import AgentConfig, AgentName
from ringrl.data.config import ChainConfig, DataConfig
from ringrl.errors import RingRLError
from ringrl.evaluation.config import EvaluationConfig, Split
from ringrl.nn.config import ModelConfig
from ringrl.ops.config import AttentionConfig
from ringrl.parallel.mesh import MeshConfig
from ringrl.parallel.multiprocess import DistributedConfig
from ringrl.training.config import Precision, TrainingConfig
from ringrl.types import SEQUENCE_AXES, Context

CONTEXT_OF_AGENT = {AgentName.dt: Context.trial, AgentName.bc: Context.step, AgentName.bc10: Context.step}


@dataclasses.dataclass(frozen=True)
class EnvConfig:
    """A gymnasium environment; without an id, the one that the data set names."""

    id: str = ""
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class TrainCommand:
    """`ringrl train`: an agent on a data set."""

    name: str = "run"  # the experiment's name: part of the run folder
    label: str = ""  # how reports call this run's agent; empty: agent.name
    seed: int = 0
    resume: str | None = None  # a run folder to continue; auto: hydra.run.dir, if there is something to continue
    profile: bool = False  # a trace of a few steps, which TensorBoard opens
    debug: bool = False  # tracebacks instead of one-line errors
    agent: AgentConfig = dataclasses.field(default_factory=AgentConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    attention: AttentionConfig = dataclasses.field(default_factory=AttentionConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)
    chain: ChainConfig = dataclasses.field(default_factory=ChainConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    env: EnvConfig = dataclasses.field(default_factory=EnvConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        check_name(self.name)
        check_agent_context(self.agent, self.chain)
        check_trajectory_embedding(self.agent, self.chain)
        check_mesh(self.attention, self.mesh)
        if self.training.batch_size % (batch_devices := max(self.mesh.data, 1) * max(self.mesh.fsdp, 1)):
            raise RingRLError(
                f"training.batch_size={self.training.batch_size} does not divide among mesh.data x mesh.fsdp = "
                f"{batch_devices} devices: set it to a multiple of {batch_devices}, or make the mesh smaller."
            )


class Which(enum.StrEnum):
    """Which checkpoint of a run: its last, or the one that scored best while training (on the tasks evaluated!)."""

    last = "last"
    best = "best"


@dataclasses.dataclass(frozen=True)
class EvalCommand:
    """`ringrl eval`: n trials of a trained agent."""

    checkpoint: str  # a run folder, or one of its checkpoints
    which: Which = Which.last
    name: str = "eval"
    label: str = ""
    debug: bool = False
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)  # with evaluation.sharded=true
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)
    env: EnvConfig = dataclasses.field(default_factory=EnvConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        check_name(self.name)
        spread = any(size != 1 for size in self.mesh.sizes.values())
        if (spread or self.distributed.num_processes > 1) and not self.evaluation.sharded:
            raise RingRLError("mesh, or several processes: set evaluation.sharded=true, else one device acts alone.")


class BehaviorKind(enum.StrEnum):
    """Who acts while data are collected."""

    random = "random"
    scripted = "scripted"  # the environment's own controller, of graded quality: random actions in between
    detour = "detour"  # the same, but searching: random places on the way
    checkpoint = "checkpoint"  # a trained RingRL agent


@dataclasses.dataclass(frozen=True)
class BehaviorConfig:
    """One policy of a mix."""

    kind: BehaviorKind = BehaviorKind.scripted
    weight: float = 1.0  # share of the episodes, relative to the other policies
    quality: float | None = None  # of the controller: 0 random, 1 its best; None draws it for every episode
    checkpoint: str = ""  # a run folder, for kind=checkpoint

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise RingRLError(f"behavior weight={self.weight} must not be negative; 0 leaves the policy out.")
        if self.quality is not None and not 0.0 <= self.quality <= 1.0:
            raise RingRLError(f"behavior quality={self.quality} is not in [0, 1]; null draws it for every episode.")
        if (self.kind == BehaviorKind.checkpoint) != bool(self.checkpoint):
            raise RingRLError("behavior checkpoint=RUN goes with kind=checkpoint, and kind=checkpoint with it.")


@dataclasses.dataclass(frozen=True)
class CollectCommand:
    """`ringrl collect`: a Minari data set from an environment and a mix of behaviour policies."""

    dataset: str  # the Minari id to write, such as ringrl/dark_room-v0
    name: str = "collect"
    seed: int = 0
    debug: bool = False
    env: EnvConfig = dataclasses.field(default_factory=EnvConfig)
    behavior: dict[str, BehaviorConfig] = dataclasses.field(default_factory=dict)  # name -> policy
    split: Split = Split.training
    episodes_per_task: int = 100
    num_environments: int = 64  # at once
    reference_episodes: int = 256  # per reference score (random, expert); 0 leaves them out
    overwrite: bool = False  # replace a data set of the same id
    reuse: bool = False  # keep a data set of the same id if it was collected by this very command
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.env.id:
            raise RingRLError("env.id is needed: choose env=NAME, or give env.id=ENVIRONMENT_ID.")
        if self.episodes_per_task < 1 or self.num_environments < 1:
            raise RingRLError("episodes_per_task and num_environments must be at least 1.")
        if not any(behavior.weight > 0 for behavior in self.behavior.values()):
            raise RingRLError("behavior names no policy with a positive weight: choose behavior=graded, for one.")
        if self.overwrite and self.reuse:
            raise RingRLError("overwrite=true and reuse=true exclude each other.")


@dataclasses.dataclass(frozen=True)
class ReportCommand:
    """`ringrl report`: a table and a figure over runs."""

    runs: list[str] = dataclasses.field(default_factory=list)  # run folders, or folders of runs; empty: the latest
    name: str = "run"  # with runs empty: the latest under runs/train/<name>
    normalized: bool = True  # where all runs of an environment have the same references
    bootstrap_samples: int = 2000
    debug: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)


class Benchmark(enum.StrEnum):
    """What is measured."""

    attention = "attention"


@dataclasses.dataclass(frozen=True)
class BenchCommand:
    """`ringrl bench attention`: forward and backward of one causal chain, at every size, beside others."""

    benchmark: Benchmark = Benchmark.attention
    name: str = "attention"
    devices: list[int] = dataclasses.field(default_factory=lambda: [4, 8])  # of the ring; virtual ones on a CPU
    tokens: list[int] = dataclasses.field(default_factory=lambda: [2048, 4096, 8192, 16384, 32768])
    dtypes: list[Precision] = dataclasses.field(default_factory=lambda: [Precision.float32])
    heads: int = 4
    head_size: int = 64
    block_size: int = 512  # tokens, of queries and of keys; of every candidate
    repeats: int = 5  # interleaved, of which the median counts; 0 compiles only, for the memory
    published: bool = True  # beside the published ringattention 0.1.2
    one_device: bool = True  # beside blockwise, and JAX's own attention, on one device
    dense_up_to: int = 8192  # tokens, for JAX's own attention: its memory is quadratic
    debug: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.devices or not self.tokens or not self.dtypes:
            raise RingRLError("bench: devices, tokens and dtypes each need a value, such as devices=[4].")
        least = {"devices": min(self.devices), "tokens": min(self.tokens), "heads": self.heads}
        least |= {"head_size": self.head_size, "block_size": self.block_size}
        for key, value in least.items():
            if value < 1:
                raise RingRLError(f"bench: {key}={value}: use at least 1.")
        if self.repeats < 0:
            raise RingRLError(f"bench: repeats={self.repeats}: use 0 (memory alone) or more.")
        for devices in self.devices:
            for tokens in self.tokens:
                block = min(self.block_size, tokens // devices)
                if block < 1 or tokens % (2 * devices) or (tokens // devices) % block:
                    raise RingRLError(
                        f"bench: tokens={tokens} on {devices} devices do not divide into blocks of "
                        f"{self.block_size} and zigzag's {2 * devices} stretches: use powers of two."
                    )


COMMANDS = {
    "train": TrainCommand,
    "eval": EvalCommand,
    "collect": CollectCommand,
    "report": ReportCommand,
    "bench": BenchCommand,
}


def check_name(name: str) -> None:
    """A run's name is a folder's name: refuse what would leave the runs' folder."""
    if not name or name.startswith(".") or any(character in name for character in "/\\\0"):
        raise RingRLError(f"name={name!r}: a plain folder name is needed.")


def check_agent_context(agent: AgentConfig, chain: ChainConfig) -> None:
    """DT looks at its own trial, BC at one step; AT may look at either (its controls)."""
    expected = CONTEXT_OF_AGENT.get(agent.name)
    if expected is not None and chain.context != expected:
        raise RingRLError(
            f"agent={agent.name} sees one {expected}, but chain.context={chain.context}: "
            f"set chain.context={expected}, or choose agent=at."
        )


def check_trajectory_embedding(agent: AgentConfig, chain: ChainConfig) -> None:
    """The trajectory embedding needs a row for each trajectory of a chain."""
    if agent.trajectory_embedding and chain.trajectories > agent.max_trajectories:
        raise RingRLError(
            f"chain.trajectories={chain.trajectories} is more than agent.max_trajectories={agent.max_trajectories}: "
            "raise the latter."
        )


def check_mesh(attention: AttentionConfig, mesh: MeshConfig) -> None:
    """Only some strategies spread a sequence over the devices of mesh.ring and mesh.head."""
    chosen = " ".join(f"mesh.{axis}={size}" for axis in SEQUENCE_AXES if (size := getattr(mesh, axis)) != 1)
    if chosen and not attention.strategy.is_sharded:
        raise RingRLError(
            f"{chosen} with attention.strategy={attention.strategy}, which keeps a chain on one device: "
            "choose attention=ring, ulysses or hybrid, or spread batch and parameters alone, by mesh.fsdp or mesh.data."
        )
