"""Compilation of a whole training step from shapes alone, for devices that are present or not."""

from typing import Any

import jax
import jax.numpy as jnp

from ringrl.agents import AgentConfig, SequenceAgent, make_agent
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.parallel.sharding import batch_sharding
from ringrl.planning.plan import DataShape
from ringrl.training.config import TrainingConfig
from ringrl.training.optimizer import make_optimizer
from ringrl.training.state import TrainState, state_shapes, state_shardings
from ringrl.training.step import make_train_step
from ringrl.types import ActionKind, Chain, Context, DataSpec

_SPEC = DataShape().spec


def synthetic_agent(
    model: ModelConfig,
    attention: AttentionConfig,
    mesh: jax.sharding.Mesh | None,
    *,
    compute_dtype: Any = jnp.float32,
    loss_block_size: int = 0,
    tokens_per_step: int = 1,
    spec: DataSpec = _SPEC,
) -> SequenceAgent:
    """An Agentic Transformer of these sizes, for data that need not exist."""
    config = AgentConfig(tokens_per_step=tokens_per_step, loss_block_size=loss_block_size)
    return make_agent(config, model, attention, spec, context=Context.chain, compute_dtype=compute_dtype, mesh=mesh)


def compile_step(
    agent: SequenceAgent,
    training: TrainingConfig,
    chains: int,
    steps: int,
    compiler_options: dict[str, Any] | None = None,
) -> Any:
    """Compile the trainer's step on `chains` chains of `steps` steps, without allocating arrays.

    Text and memory of the result can be read; `compiler_options` replace the trainer's own. Raises RingRLError if agent
    and mesh do not match, JAX's ValueError if chains or steps do not divide among the devices.
    """
    return lower_step(agent, training, chains, steps).compile(compiler_options=compiler_options)


def lower_step(agent: SequenceAgent, training: TrainingConfig, chains: int, steps: int) -> Any:
    """Lower the step without compiling: JAX's `Lowered`, whose text is the traced program."""
    step = make_train_step(agent, training)
    return step.lower(abstract_state(agent, training), abstract_batch(agent, chains, steps))


def abstract_state(agent: SequenceAgent, training: TrainingConfig) -> TrainState:
    """Shapes, dtypes and shardings of a training state."""
    shapes = state_shapes(agent, training)
    shardings = state_shardings(agent, make_optimizer(training))
    if shardings is None:
        return shapes

    def placed(leaf: Any, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(placed, shapes, shardings)


def abstract_batch(agent: SequenceAgent, chains: int, steps: int) -> Chain:
    """Shapes, dtypes and shardings of a batch of chains."""
    sharding = None if agent.mesh is None else batch_sharding(agent.mesh)

    def array(*sizes: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct((chains, steps, *sizes), dtype, sharding=sharding)

    discrete = agent.spec.action.kind is ActionKind.discrete
    actions = array(dtype=jnp.int32) if discrete else array(agent.spec.action.size)
    number, label = array(), array(dtype=jnp.int32)
    return Chain(
        observations=array(agent.spec.observation_size),
        actions=actions,
        rewards=number,
        return_to_go=number,
        completion=number,
        previous_actions=actions,
        previous_rewards=number,
        previous_completion=number,
        previous_mask=number,
        timesteps=label,
        trajectories=label,
        positions=label,
        segment_ids=label,
        loss_mask=number,
    )
