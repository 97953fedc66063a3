"""Construction of the batches that a run trains on."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from ringrl.agents import SequenceAgent
from ringrl.data import ChainSampler, Loader
from ringrl.errors import RingRLError
from ringrl.ops import step_order
from ringrl.parallel.batches import BatchParts
from ringrl.training.config import TrainingConfig
from ringrl.types import Chain


def make_batches(
    agent: SequenceAgent, sampler: ChainSampler, training: TrainingConfig, *, seed: int = 0
) -> Callable[[int], Iterator[Chain]]:
    """Create the stream of batches that `train` reads, on the agent's devices.

    On a mesh this process builds only its own devices' shards, in the layout of the agent's attention.

    Args:
        agent: the agent to train, whose mesh determines the sharding of chains.
        sampler: samples the chains.
        training: batch size, and settings of prefetching.
        seed: seed of the stream; batch k is a pure function of (seed, k).

    Returns:
        A function that, given `start`, yields batches start, start + 1, ... training.steps - 1, each a `Chain`
        (B, P, ...) of JAX arrays.

    Raises:
        RingRLError: the sampler's context is not the agent's, the agent does not compute in `training.precision`, or
            the batch does not divide among the mesh's devices.
    """
    check_alike(agent, sampler, training)
    size = training.batch_size
    load = functools.partial(Loader, stop=training.steps, threads=training.loader_threads, prefetch=training.prefetch)
    if agent.mesh is None:
        return lambda start: map(jax.device_put, load(lambda index: sampler.batch(seed, index, size), start=start))
    attention, order = agent.attention_config, np.arange(sampler.steps)
    if attention.strategy.is_sharded:
        order = step_order(attention.strategy, attention.layout, sampler.steps, agent.mesh)
    batches = BatchParts(agent.mesh, size, order)

    def prepare(index: int) -> list[Chain]:
        episodes, first_steps = sampler.draw(seed, index, size)
        return [sampler.assemble(episodes[rows], first_steps[rows], places) for rows, places in batches.parts]

    return lambda start: map(batches.join, load(prepare, start=start))


def check_alike(agent: SequenceAgent, sampler: ChainSampler, training: TrainingConfig) -> None:
    """Raise RingRLError if an agent's settings differ from those it is trained with."""
    if sampler.config.context is not agent.context:
        raise RingRLError(
            f"chain.context={sampler.config.context} of the sampler, but the agent was made with context="
            f"{agent.context}: give make_agent the sampler's, context=sampler.config.context."
        )
    computes = jnp.dtype(agent.compute_dtype).name
    if computes != training.precision:
        raise RingRLError(
            f"training.precision={training.precision}, but the agent computes in {computes}: give make_agent "
            f"compute_dtype={str(training.precision)!r}, or set training.precision={computes}."
        )
