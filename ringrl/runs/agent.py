"""Construction of a run's agent from the settings of `ringrl train` or from a checkpoint."""

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
    """An agent ready to act, with the data of its run that acting needs."""

    command: TrainCommand
    agent: SequenceAgent
    parameters: Parameters
    normalization: Normalization
    environment: EnvConfig  # as a user would name it; the metadata have its full record
    chain_steps: int  # P in training
    target_return: float
    metadata: dict[str, Any]  # the checkpoint's metadata


def make_run_agent(command: TrainCommand, spec: DataSpec, mesh: jax.sharding.Mesh | None = None) -> SequenceAgent:
    """Make the agent that a training command describes, for data of these sizes.

    Without a mesh it acts on one device: a strategy that shards the sequence computes the same values as blockwise.
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
    """Rebuild an agent from a run folder or checkpoint; raises RingRLError if there is no usable one.

    With a mesh, which need not be the run's, the agent acts on all its devices, over which its parameters are sharded.
    An agent whose context is shorter than a chain ignores the mesh.
    """
    parameters, metadata = restore_parameters(checkpoint, which, warn)
    try:
        command = build(TrainCommand, metadata["config"])
        normalization = Normalization.from_json(metadata["normalization"])
        mesh = mesh if command.chain.context is Context.chain else None
        agent = make_run_agent(command, normalization.shown_spec(spec_from_json(metadata["spec"])), mesh)
        return LoadedAgent(
            command,
            agent,
            jax.device_put(parameters) if mesh is None else _shard(parameters, mesh),
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


def _shard(parameters: Parameters, mesh: jax.sharding.Mesh) -> Parameters:
    """Transfer NumPy arrays to their shardings over a mesh, each device receiving only its shard."""

    def put(leaf: np.ndarray, sharding: jax.sharding.NamedSharding) -> jax.Array:
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, parameters, parameter_shardings(parameters, mesh))
