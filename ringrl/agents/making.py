"""From a config to its agent."""

from typing import Any

import jax
import jax.numpy as jnp

from ringrl.agents.agentic_transformer import AgenticTransformer
from ringrl.agents.behavior_cloning import BehaviorCloning
from ringrl.agents.config import AgentConfig, AgentName
from ringrl.agents.decision_transformer import DecisionTransformer
from ringrl.agents.sequence_agent import SequenceAgent
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.types import Context, DataSpec

_AGENTS: dict[AgentName, type[SequenceAgent]] = {
    AgentName.at: AgenticTransformer,
    AgentName.dt: DecisionTransformer,
    AgentName.bc: BehaviorCloning,
    AgentName.bc10: BehaviorCloning,
}


def make_agent(
    config: AgentConfig,
    model_config: ModelConfig,
    attention_config: AttentionConfig,
    spec: DataSpec,
    *,
    context: Context = Context.chain,
    compute_dtype: Any = jnp.float32,
    mesh: jax.sharding.Mesh | None = None,
) -> SequenceAgent:
    """The agent that a config names; it has no state, every method is a pure function of parameters.

    Args:
        config: its tokens and action head.
        model_config: the transformer's sizes.
        attention_config: how tokens attend to each other.
        spec: sizes of the data and bounds of actions: `ChainSampler.spec`.
        context: how far back a step may look: `ChainConfig.context`.
        compute_dtype: of activations; parameters are float32. The same as `TrainingConfig.precision`.
        mesh: the devices that chains, their steps and the parameters are spread over; by default one.

    Returns:
        An `AgenticTransformer`, `DecisionTransformer` or `BehaviorCloning` (Liu and Abbeel 2023, arXiv 2305.16554; Chen
        et al. 2021, arXiv 2106.01345).

    Raises:
        RingRLError: a context, token layout or action head that does not fit.
    """
    return _AGENTS[config.name](
        config,
        model_config,
        attention_config,
        spec,
        context=context,
        compute_dtype=jnp.dtype(compute_dtype),
        mesh=mesh,
    )
