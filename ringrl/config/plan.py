"""Configuration of `ringrl plan`."""

import dataclasses
import enum

from ringrl.agents.config import AgentConfig, AgentName
from ringrl.config.checks import check_mesh, check_name
from ringrl.errors import RingRLError
from ringrl.nn.config import ModelConfig
from ringrl.ops.automatic import settle_on_mesh
from ringrl.ops.config import AttentionConfig
from ringrl.parallel.config import MeshConfig
from ringrl.planning.cluster.targets import Target
from ringrl.planning.plan import MAX_TOKENS, DataShape
from ringrl.training.config import TrainingConfig


class Search(enum.StrEnum):
    """The quantity that a search varies."""

    none = "none"  # nothing: one plan, of tokens or trajectories
    context = "context"  # the chain's length, up to the largest that fits
    blocks = "blocks"  # block sizes of attention
    strategy = "strategy"  # how attention is distributed over the devices


@dataclasses.dataclass(frozen=True)
class PlanCommand:
    """`ringrl plan`: compile the training step of `ringrl train` for a cluster, without needing the cluster."""

    name: str = "plan"  # part of the run folder
    target: Target = dataclasses.field(default_factory=Target)
    tokens: int = 0  # tokens of one chain
    trajectories: int = 0  # in place of tokens: number of trajectories of 1,000 steps
    search: Search = Search.none
    bisect: bool = False  # of search=context, to 1/8 of a power of two
    compile: bool = True  # false: only the closed-form estimate, which is immediate
    cache: bool = True  # cache results of compilers in the data folder
    debug: bool = False  # tracebacks instead of one-line errors
    agent: AgentConfig = dataclasses.field(default_factory=AgentConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    attention: AttentionConfig = dataclasses.field(default_factory=AttentionConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)  # all at 1: all devices, as the strategy has it
    shape: DataShape = dataclasses.field(default_factory=DataShape)  # of the data
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        check_name(self.name)
        check_mesh(self.attention, self.mesh)
        object.__setattr__(self, "attention", settle_on_mesh(self.attention, self.mesh.sizes))
        if self.agent.name is not AgentName.at:
            raise RingRLError(
                f"agent.name={self.agent.name}: its contexts are short and fit anywhere; plan for agent.name=at."
            )
        if self.tokens < 0 or self.trajectories < 0 or (self.tokens and self.trajectories):
            raise RingRLError("plan: give tokens=N or trajectories=N (of 1,000 steps), one of them.")
        if self.tokens > MAX_TOKENS:
            raise RingRLError(f"tokens={self.tokens}: positions are 32-bit, so {MAX_TOKENS} are the most.")
        if self.search is not Search.context and not (self.tokens or self.trajectories):
            raise RingRLError(
                "plan: give tokens=N or trajectories=N (of 1,000 steps), or search=context to find the most."
            )
        if self.bisect and self.search is not Search.context:
            raise RingRLError("bisect=true goes with search=context.")
