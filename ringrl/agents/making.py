"""From a config to its agent."""

from typing import Any

from ringrl.agents.agentic_transformer import AgenticTransformer
from ringrl.agents.behavior_cloning import BehaviorCloning
from ringrl.agents.config import AgentConfig, AgentName
from ringrl.agents.decision_transformer import DecisionTransformer
from ringrl.agents.sequence_agent import SequenceAgent
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.types import DataSpec

_AGENTS: dict[AgentName, type[SequenceAgent]] = {
    AgentName.at: AgenticTransformer,
    AgentName.dt: DecisionTransformer,
    AgentName.bc: BehaviorCloning,
    AgentName.bc10: BehaviorCloning,
}


def make_agent(
    config: AgentConfig, model_config: ModelConfig, attention_config: AttentionConfig, spec: DataSpec, **options: Any
) -> SequenceAgent:
    """The agent that a config names; options are those of `SequenceAgent` (context, compute_dtype, mesh).

    Raises:
      RingRLError: a context, token layout or action head that does not fit.
    """
    return _AGENTS[config.name](config, model_config, attention_config, spec, **options)
