"""Agents: tokens of a chain in, loss and action out."""

from typing import Any

from ringrl.agents.agentic_transformer import AgenticTransformer as AgenticTransformer
from ringrl.agents.behavior_cloning import BehaviorCloning as BehaviorCloning
from ringrl.agents.config import ActionHead as ActionHead
from ringrl.agents.config import AgentConfig as AgentConfig
from ringrl.agents.config import AgentName as AgentName
from ringrl.agents.decision_transformer import DecisionTransformer as DecisionTransformer
from ringrl.agents.sequence_agent import SequenceAgent as SequenceAgent
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
