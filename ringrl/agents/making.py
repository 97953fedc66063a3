"""Construction of agents from their config."""

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
    """Build the agent that `config` selects. It is stateless: every method is a pure function of the parameters.

    Args:
        config: tokens and action head.
        model_config: sizes and options of the transformer.
        attention_config: strategy and kernel of attention.
        spec: sizes of the data and bounds of the actions, such as `ChainSampler.spec`.
        context: which earlier steps a step may attend to, such as `ChainConfig.context`.
        compute_dtype: dtype of activations, the same as `TrainingConfig.precision`; parameters are float32.
        mesh: the devices over which chains, their steps and the parameters are sharded; by default one device.

    Returns:
        An `AgenticTransformer`, `DecisionTransformer` or `BehaviorCloning` (Liu and Abbeel 2023, arXiv 2305.16554; Chen
        et al. 2021, arXiv 2106.01345).

    Raises:
        RingRLError: the context, token layout or action head does not fit.
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
