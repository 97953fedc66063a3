"""Configuration of an agent: its tokens and its action head."""

import dataclasses
import enum

from ringrl.errors import RingRLError, check_least, parse_choice


class AgentName(enum.StrEnum):
    """Agents by their short names."""

    at = "at"
    dt = "dt"
    bc = "bc"
    bc10 = "bc10"


class ActionHead(enum.StrEnum):
    """The distribution over actions; `auto` is `categorical` for discrete actions and `bins` for continuous ones."""

    auto = "auto"
    deterministic = "deterministic"  # tanh, mean squared error
    gaussian = "gaussian"  # likelihood of a diagonal Gaussian
    bins = "bins"  # a categorical over equal bins per action dimension
    categorical = "categorical"  # cross-entropy over discrete actions


@dataclasses.dataclass(frozen=True)
class AgentConfig:
    """An agent's tokens, embeddings and action head."""

    name: AgentName = AgentName.at
    tokens_per_step: int = 1  # 4 is the paper's layout; 2 and 1 merge fields of a step into one token
    token_layout: str = ""  # overrides the layout: slots split by "|", fields joined by "+"
    action_head: ActionHead = ActionHead.auto
    action_bins: int = 5  # of action_head=bins: bins for each action dimension
    return_to_go: bool = True  # condition on the return to go
    completion: bool = True  # condition on which trajectories reached the target
    timestep_embedding: bool = True  # embed the step within the episode
    trajectory_embedding: bool = False  # embed the trajectory's place in the chain
    max_trajectories: int = 64  # rows of the trajectory embedding
    loss_block_size: int = 0  # steps whose action outputs are held at once in training; 0 means all

    def __post_init__(self) -> None:
        for name, choices in (("name", AgentName), ("action_head", ActionHead)):
            object.__setattr__(self, name, parse_choice(f"agent.{name}", getattr(self, name), choices))
        if not self.token_layout and self.tokens_per_step not in (1, 2, 4):
            raise RingRLError(
                f"agent.tokens_per_step={self.tokens_per_step}: choose 1, 2 or 4, or spell out agent.token_layout."
            )
        check_least("agent", self, {"action_bins": 2, "max_trajectories": 1, "loss_block_size": 0})
