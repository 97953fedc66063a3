"""Configuration of `ringrl train` and `ringrl eval`."""

import dataclasses
import enum
from typing import Any

from ringrl.agents.config import AgentConfig
from ringrl.config.checks import check_agent_context, check_mesh, check_name, check_seed, check_trajectory_embedding
from ringrl.data.config import ChainConfig, DataConfig
from ringrl.errors import RingRLError
from ringrl.evaluation.config import EvaluationChoice, EvaluationConfig
from ringrl.nn.config import ModelConfig
from ringrl.ops.automatic import settle_on_mesh
from ringrl.ops.config import AttentionConfig
from ringrl.parallel.config import DistributedConfig, MeshConfig
from ringrl.training.config import TrainingConfig


@dataclasses.dataclass(frozen=True)
class EnvConfig:
    """A gymnasium environment; without an id, the one recorded in the data set."""

    id: str = ""  # a gymnasium id, also MODULE:ID; empty: the environment that the data set names
    # Arguments of gymnasium.make for the environment, each as env.kwargs.NAME=VALUE
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


class ResumeChanges(enum.StrEnum):
    """How a resumed run treats changed settings that affect its result."""

    refuse = "refuse"
    record = "record"  # it continues with them, and each is recorded with its step


@dataclasses.dataclass(frozen=True)
class TrainCommand:
    """`ringrl train`: train an agent on a data set."""

    name: str = "run"  # the experiment's name: part of the run folder
    label: str = ""  # name of this run's agent in reports; empty: agent.name
    seed: int = 0  # of the parameters, the batches and dropout
    resume: str | None = None  # a run folder to continue; auto: hydra.run.dir, if there is something to continue
    resume_changes: ResumeChanges = ResumeChanges.refuse  # policy for changed settings of training and evaluation
    overwrite: bool = False  # replace the run in the folder
    profile: bool = False  # trace a few steps for TensorBoard's profiler
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
        if self.overwrite and self.resume is not None:
            raise RingRLError("overwrite=true and resume exclude each other: the one begins anew, the other goes on.")
        check_seed(self.seed)
        check_seed(self.evaluation.seed, "evaluation.seed")
        check_agent_context(self.agent, self.chain)
        check_trajectory_embedding(self.agent, self.chain)
        check_mesh(self.attention, self.mesh)
        object.__setattr__(self, "attention", settle_on_mesh(self.attention, self.mesh.sizes))
        if self.training.batch_size % (batch_devices := max(self.mesh.data, 1) * max(self.mesh.fsdp, 1)):
            raise RingRLError(
                f"training.batch_size={self.training.batch_size} does not divide among mesh.data x mesh.fsdp = "
                f"{batch_devices} devices: set it to a multiple of {batch_devices}, or make the mesh smaller."
            )


class Which(enum.StrEnum):
    """Which checkpoint of a run: its last, or the one with the best score in training (on the tasks evaluated!)."""

    last = "last"
    best = "best"


@dataclasses.dataclass(frozen=True)
class EvalCommand:
    """`ringrl eval`: evaluate a trained agent for n trials."""

    checkpoint: str  # a run folder, or one of its checkpoints
    which: Which = Which.last
    name: str = "eval"  # the experiment's name: part of the run folder
    label: str = ""  # name of this agent in reports; empty: that of its run
    debug: bool = False  # tracebacks instead of one-line errors
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)  # with evaluation.sharded=true
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)
    env: EnvConfig = dataclasses.field(default_factory=EnvConfig)
    evaluation: EvaluationChoice = dataclasses.field(default_factory=EvaluationChoice)  # null: the value of the run

    def __post_init__(self) -> None:
        check_name(self.name)
        check_seed(self.evaluation.seed, "evaluation.seed")
        spread = any(size != 1 for size in self.mesh.sizes.values())
        if (spread or self.distributed.num_processes > 1) and not self.evaluation.sharded:
            raise RingRLError("mesh, or several processes: set evaluation.sharded=true, else one device acts alone.")
