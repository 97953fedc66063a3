"""A plan (a training step and its target cluster), and the compiler's report on it. Both are JSON."""

import dataclasses
import json
from typing import Any

from ringrl.agents import AgentConfig
from ringrl.errors import RingRLError
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig, Layout
from ringrl.parallel.config import AXES, MeshConfig
from ringrl.planning.cluster.targets import Target
from ringrl.planning.hlo.places import OF_RING
from ringrl.training.config import OptimizerConfig, Precision, Schedule, TrainingConfig
from ringrl.types import ActionKind, ActionSpec, Context, DataSpec

MAX_TOKENS = 2**31 - 1  # positions are int32
TRAJECTORY_STEPS = 1000  # steps of the papers' trajectories, and of most environments


@dataclasses.dataclass(frozen=True)
class DataShape:
    """Sizes of a step of the data; the defaults are a walker's."""

    observation_size: int = 24  # numbers in an observation
    action_size: int = 6  # numbers in an action, or the number of discrete actions
    discrete: bool = False  # whether actions are discrete
    max_episode_steps: int = TRAJECTORY_STEPS  # longest episode, in steps

    def __post_init__(self) -> None:
        for name in ("observation_size", "action_size", "max_episode_steps"):
            if getattr(self, name) < 1:
                raise RingRLError(f"shape.{name}={getattr(self, name)}: use at least 1.")

    @property
    def spec(self) -> DataSpec:
        """The sizes as a `DataSpec`."""
        size = self.action_size
        if self.discrete:
            return DataSpec(self.observation_size, ActionSpec(ActionKind.discrete, size), self.max_episode_steps)
        action = ActionSpec(ActionKind.continuous, size, (-1.0,) * size, (1.0,) * size)
        return DataSpec(self.observation_size, action, self.max_episode_steps)


@dataclasses.dataclass(frozen=True)
class Plan:
    """One optimizer step of `ringrl train`, on chains of `tokens` tokens, over the devices of a target."""

    target: Target
    tokens: int  # per chain
    agent: AgentConfig = dataclasses.field(default_factory=AgentConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    attention: AttentionConfig = dataclasses.field(default_factory=AttentionConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=lambda: MeshConfig(ring=-1))
    training: TrainingConfig = dataclasses.field(default_factory=lambda: TrainingConfig(batch_size=1))
    data: DataShape = dataclasses.field(default_factory=DataShape)
    context: Context = Context.chain
    compiler_options: dict[str, bool | int] = dataclasses.field(default_factory=dict)  # added to the trainer's own

    @property
    def sizes(self) -> dict[str, int]:
        """Devices along each axis of the mesh, with -1 resolved; raises RingRLError if they do not match the target."""
        return resolve_mesh_sizes(self.mesh, self.target)

    @property
    def chains(self) -> int:
        """Number of chains in the whole batch."""
        return self.training.batch_size

    @property
    def sequence_devices(self) -> int:
        """Number of devices that share a chain."""
        sizes = self.sizes
        return sizes["ring"] * sizes["head"] if self.attention.strategy.is_sharded else 1

    @property
    def tokens_per_device(self) -> int:
        """Number of tokens on a device, over all its chains."""
        sizes = self.sizes
        return self.tokens // self.sequence_devices * self.chains // (sizes["data"] * sizes["fsdp"])

    @property
    def tokens_per_step(self) -> int:
        """Number of tokens per environment step."""
        return self.agent.token_layout.count("|") + 1 if self.agent.token_layout else self.agent.tokens_per_step

    @property
    def trajectories(self) -> float:
        """Number of trajectories of 1,000 steps in a chain."""
        return self.tokens / self.tokens_per_step / TRAJECTORY_STEPS

    @property
    def multiple(self) -> int:
        """The number that divides the tokens of a chain in an even distribution over the layout."""
        halves = 2 if self.attention.strategy.is_sharded and self.attention.layout is Layout.zigzag else 1
        return self.sequence_devices * halves * self.tokens_per_step

    def of(self, tokens: int) -> "Plan":
        """The plan with chains of at least `tokens` tokens, rounded up to an even distribution over the layout."""
        return dataclasses.replace(self, tokens=tokens + -tokens % self.multiple)

    def to_json(self) -> str:
        """Format the plan as text that `plan_from_json` reads."""
        return json.dumps(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device, as the compiler reports them."""

    arguments: int  # parameters, optimizer state and the batch
    outputs: int
    aliased: int  # outputs that take an argument's place
    temporaries: int
    code: int = 0
    host: int = 0  # in host memory, for this device

    @property
    def total(self) -> int:
        """Total on the device at the peak."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Buffer:
    """A large temporary of the compiled program."""

    bytes: int
    shape: str  # in the compiler's notation: bf16[32,1,8192,4096]
    source: str  # its origin in the program, as JAX names it
    count: int = 1  # number of equal ones


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Collectives of one kind and origin in the program."""

    kind: str  # the compilers' name: collective-permute
    source: str
    shapes: tuple[str, ...]
    times: int  # number in one step
    bytes: float  # sent by one device in one step, over all times
    across: bool  # whether the schedule overlaps each with matrix products
    due: bool = True  # False if no computation is left to overlap: the return of gradients


@dataclasses.dataclass(frozen=True)
class Report:
    """The compiler's report."""

    tokens: int
    accepted: bool
    refusal: str = ""  # the compiler's own message
    memory: Memory | None = None  # None if it was refused before that was known
    limit: int = 0  # bytes of a device that a program may use
    buffers: tuple[Buffer, ...] = ()  # the largest first
    transfers: tuple[Transfer, ...] = ()
    device_kind: str = ""
    devices: int = 0
    compilers: dict[str, str] = dataclasses.field(default_factory=dict)  # versions by package
    flags: dict[str, bool | int] = dataclasses.field(default_factory=dict)  # those set by the trainer
    environment: dict[str, str] = dataclasses.field(default_factory=dict)  # the user's own flags, by variable
    program: str = ""  # a digest of program, target and compilers
    seconds: float = 0.0  # of tracing and compiling
    peak_host_bytes: int = 0  # of the compiling process
    cached: bool = False

    @property
    def hops(self) -> tuple[Transfer, ...]:
        """Hops of the ring that can be overlapped; compilers also turn other collectives into permutes."""
        permutes = (transfer for transfer in self.transfers if transfer.kind == "collective-permute")
        return tuple(transfer for transfer in permutes if transfer.source.startswith(OF_RING) and transfer.due)

    @property
    def hop_count(self) -> int:
        """Number of hops of one device in one step."""
        return sum(hop.times for hop in self.hops)

    @property
    def hops_across_compute(self) -> int:
        """Number of those hops that the schedule overlaps with matrix products."""
        return sum(hop.times for hop in self.hops if hop.across)

    @property
    def exposed(self) -> tuple[Transfer, ...]:
        """Hops that are not overlapped."""
        return tuple(hop for hop in self.hops if not hop.across)

    def to_json(self) -> str:
        """Format the report as text that `report_from_json` reads."""
        return json.dumps(dataclasses.asdict(self))


def resolve_mesh_sizes(mesh: MeshConfig, target: Target) -> dict[str, int]:
    """Resolve the devices along each axis, which use the whole target; raises RingRLError if that is impossible."""
    sizes = mesh.sizes
    named = 1
    for size in sizes.values():
        named *= max(size, 1)
    wanted = " x ".join(f"mesh.{axis}={size}" for axis, size in sizes.items() if size != 1) or "mesh of one device"
    open_axes = [axis for axis in AXES if sizes[axis] == -1]
    if open_axes and target.devices % named == 0:
        return {**sizes, open_axes[0]: target.devices // named}
    if open_axes:
        fitting = min(
            (n for n in range(1, target.devices + 1) if target.devices % n == 0), key=lambda n: abs(n - named)
        )
        raise RingRLError(
            f"{wanted}: {named} does not divide the {target.devices} devices of {target.topology}; {fitting} would."
        )
    if named != target.devices:
        raise RingRLError(
            f"{wanted} takes {named} devices and {target.topology} has {target.devices}: "
            "set one axis to -1 (mesh.ring=-1 with attention=ring, else mesh.fsdp=-1)."
        )
    return sizes


def plan_from_json(text: str) -> Plan:
    """Read the output of `Plan.to_json`."""
    found = json.loads(text)
    training = found["training"]
    optimizer = training["optimizer"]
    optimizer["schedule"] = Schedule(optimizer["schedule"])
    training |= {"optimizer": OptimizerConfig(**optimizer), "precision": Precision(training["precision"])}
    return Plan(
        target=Target(**found["target"]),
        tokens=found["tokens"],
        agent=AgentConfig(**found["agent"]),
        model=ModelConfig(**found["model"]),
        attention=AttentionConfig(**found["attention"]),
        mesh=MeshConfig(**found["mesh"]),
        training=TrainingConfig(**training),
        data=DataShape(**found["data"]),
        context=Context(found["context"]),
        compiler_options=found["compiler_options"],
    )


def report_from_json(text: str) -> Report:
    """Read the output of `Report.to_json`."""
    found: dict[str, Any] = json.loads(text)
    memory = found["memory"]
    return Report(
        **{
            **found,
            "memory": None if memory is None else Memory(**memory),
            "buffers": tuple(Buffer(**one) for one in found["buffers"]),
            "transfers": tuple(Transfer(**{**one, "shapes": tuple(one["shapes"])}) for one in found["transfers"]),
        }
    )
