"""Agents: models that map the tokens of a chain to a training loss and to actions."""

from typing import TYPE_CHECKING

from ringrl.lazy import on_demand

if TYPE_CHECKING:
    from ringrl.agents.agentic_transformer import AgenticTransformer as AgenticTransformer
    from ringrl.agents.behavior_cloning import BehaviorCloning as BehaviorCloning
    from ringrl.agents.config import ActionHead as ActionHead
    from ringrl.agents.config import AgentConfig as AgentConfig
    from ringrl.agents.config import AgentName as AgentName
    from ringrl.agents.decision_transformer import DecisionTransformer as DecisionTransformer
    from ringrl.agents.making import make_agent as make_agent
    from ringrl.agents.sequence_agent import SequenceAgent as SequenceAgent

__getattr__ = on_demand(
    globals(),
    {
        "agentic_transformer": "AgenticTransformer",
        "behavior_cloning": "BehaviorCloning",
        "config": "ActionHead AgentConfig AgentName",
        "decision_transformer": "DecisionTransformer",
        "making": "make_agent",
        "sequence_agent": "SequenceAgent",
    },
)
