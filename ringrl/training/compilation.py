"""Compiling the training step: for a batch laid out as the agent expects, within the device's memory."""

import jax

from ringrl.errors import RingRLError
from ringrl.ops import check_dealt, ring_size
from ringrl.training.config import TrainingConfig
from ringrl.training.device import check_memory, device_name
from ringrl.training.programs import Programs, compile_function
from ringrl.training.state import Agent, TrainState
from ringrl.training.step import TrainStep, make_train_step
from ringrl.types import Chain


def check_layout(agent: Agent, batch: Chain) -> None:
    """Raise RingRLError if a batch does not have the layout of the agent's ring, if it has one."""
    mesh = agent.mesh
    if mesh is not None and agent.attention_config.strategy.is_sharded:
        attention = agent.attention_config
        check_dealt(batch.positions, batch.segment_ids, attention.layout, ring_size(attention.strategy, mesh))


def compile_train_step(
    agent: Agent, training: TrainingConfig, state: TrainState, batch: Chain, programs: Programs | None = None
) -> TrainStep:
    """Compile the train step for these shapes, or load it from `programs`.

    Raises RingRLError if it needs more memory than the device has.
    """
    device = state.step.addressable_shards[0].device  # memory of another process's device is unknown
    steps = batch.loss_mask.shape[1]
    try:
        step = make_train_step(agent, training)
        compiled = compile_function(step, "train_step", (state, batch), programs, agent.mesh)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise RingRLError(
            f"Chain longer than memory allows: {device_name(device)} cannot hold a training step on chains of {steps} "
            "steps; lower chain.trajectories or training.batch_size, or set attention.strategy=blockwise."
        ) from error
    check_memory(compiled, device, steps=steps)
    return compiled
