"""The agent of a run, from the settings of `ringrl train` or from a checkpoint."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ringrl.agents import SequenceAgent, make_agent
from ringrl.config import EnvConfig, TrainCommand
from ringrl.config.schema import build
from ringrl.data.store_format import spec_from_json
from ringrl.errors import RingRLError
from ringrl.ops import Strategy
from ringrl.parallel.sharding import parameter_shardings
from ringrl.training.checkpoint import Which, restore_parameters
from ringrl.types import Context, DataSpec, Normalization, Parameters


@dataclasses.dataclass(frozen=True)
class LoadedAgent:
    """An agent ready to act, with what its run knew."""

    command: TrainCommand
    agent: SequenceAgent
    parameters: Parameters
    normalization: Normalization
    environment: EnvConfig  # as one would name it; the metadata have its whole record
    chain_steps: int  # P in training
    target_return: float
    metadata: dict[str, Any]  # of the checkpoint


def agent_of(command: TrainCommand, spec: DataSpec, mesh: jax.sharding.Mesh | None = None) -> SequenceAgent:
    """The agent that a training command describes, for data of these sizes.

    Without a mesh it acts on one device: a strategy that spreads the sequence has the values of blockwise.
    """
    attention = command.attention
    if attention.strategy.is_sharded and mesh is None:
        attention = dataclasses.replace(attention, strategy=Strategy.blockwise)
    return make_agent(
        command.agent,
        command.model,
        attention,
        spec,
        context=command.chain.context,
        compute_dtype=jnp.dtype(command.training.precision.value),
        mesh=mesh,
    )


def load_agent(
    checkpoint: str | Path,
    which: Which = "last",
    warn: Callable[[str], None] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> LoadedAgent:
    """Rebuild an agent from a run folder or checkpoint; raises RingRLError where there is none that can be used.

    With a mesh, whatever the run had, the agent acts on all its devices, over which its parameters are split. One that
    looks at less than a chain ignores it: its contexts are short.
    """
    parameters, metadata = restore_parameters(checkpoint, which, warn)
    try:
        command = build(TrainCommand, metadata["config"])
        normalization = Normalization.from_json(metadata["normalization"])
        mesh = mesh if command.chain.context is Context.chain else None
        agent = agent_of(command, normalization.shown_spec(spec_from_json(metadata["spec"])), mesh)
        return LoadedAgent(
            command,
            agent,
            jax.device_put(parameters) if mesh is None else _spread(parameters, mesh),
            normalization,
            build(EnvConfig, metadata["environment"]),
            metadata["chain_steps"],
            metadata["target_return"],
            metadata,
        )
    except (KeyError, TypeError) as error:
        raise RingRLError(
            f"{checkpoint}: its metadata lack {error}: it is not a checkpoint of `ringrl train`."
        ) from error


def _spread(parameters: Parameters, mesh: jax.sharding.Mesh) -> Parameters:
    """Numpy arrays in their shardings over a mesh, of which every device gets its part alone."""

    def put(leaf: np.ndarray, sharding: jax.sharding.NamedSharding) -> jax.Array:
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, parameters, parameter_shardings(parameters, mesh))
