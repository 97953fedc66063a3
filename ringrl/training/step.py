"""One optimiser step, as a pure function of the state and the batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ringrl.errors import RingRLError
from ringrl.training.compiler_flags import compiler_flags
from ringrl.training.config import TrainingConfig
from ringrl.training.optimizer import learning_rate_schedule, make_optimizer
from ringrl.training.state import Agent, TrainState, state_sharding
from ringrl.types import Chain, Metrics, Parameters

TrainStep = Callable[[TrainState, Chain], tuple[TrainState, Metrics]]


def make_train_step(
    agent: Agent, training: TrainingConfig, optimizer: optax.GradientTransformation | None = None
) -> Any:
    """A jitted `train_step(state, batch) -> (state, metrics)` that donates the state.

    Over several devices it is compiled with the flags that their compiler needs (`ringrl.training.compiler_flags`).

    Metrics are scalars of this step: loss, gradient_norm (before clipping), parameter_norm (before the update),
    learning_rate, skipped, skipped_in_row, and the agent's own. Where the loss or a gradient is not finite,
    parameters and optimiser stay as they were and the skipped counters rise.
    """
    transform = optimizer if optimizer is not None else make_optimizer(training)
    schedule = learning_rate_schedule(training)
    pieces = training.gradient_accumulation

    def train_step(state: TrainState, batch: Chain) -> tuple[TrainState, Metrics]:
        dropout_key = jax.random.fold_in(state.key, state.step)
        loss, agent_metrics, gradients = _loss_and_gradients(agent, state.params, batch, dropout_key, pieces)
        gradient_norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)

        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with floats
            updates, optimizer_state = transform.update(gradients, state.optimizer_state, state.params)
        params = optax.apply_updates(state.params, updates)
        skipped = jnp.where(finite, 0, 1)
        next_state = TrainState(
            params=_choose(finite, params, state.params),
            optimizer_state=_choose(finite, optimizer_state, state.optimizer_state),
            step=state.step + 1,
            key=state.key,
            skipped=state.skipped + skipped,
            skipped_in_row=jnp.where(finite, 0, state.skipped_in_row + 1),
        )
        metrics = {
            **agent_metrics,
            "loss": loss,
            "gradient_norm": gradient_norm,
            "parameter_norm": optax.tree.norm(state.params),
            "learning_rate": schedule(state.step - state.skipped),  # updates so far: the optimiser's own count
            "skipped": next_state.skipped,
            "skipped_in_row": next_state.skipped_in_row,
        }
        return next_state, metrics

    return jax.jit(
        train_step,
        donate_argnums=0,
        out_shardings=state_sharding(agent),
        compiler_options=compiler_flags(agent.mesh),
    )


def split_batch(batch: Chain, pieces: int) -> Chain:
    """Leaves (B, ...) as (pieces, B / pieces, ...); raises RingRLError where pieces does not divide B."""
    chains = jax.tree.leaves(batch)[0].shape[0]
    if chains % pieces:
        raise RingRLError(f"A batch of {chains} chains does not split into {pieces} (training.gradient_accumulation).")
    return jax.tree.map(lambda leaf: leaf.reshape(pieces, chains // pieces, *leaf.shape[1:]), batch)


def _loss_and_gradients(
    agent: Agent, params: Parameters, batch: Chain, dropout_key: jax.Array, pieces: int
) -> tuple[jax.Array, Metrics, Parameters]:
    """Loss, metrics and gradients of the whole batch, computed piece by piece.

    An agent's loss is a mean over supervised steps, so each piece counts by its number of them and the sum
    equals the mean over the whole batch, however unevenly the pieces are filled.
    """
    value_and_grad = jax.value_and_grad(agent.loss, has_aux=True)
    if pieces == 1:
        (loss, metrics), gradients = value_and_grad(params, batch, dropout_key)
        return loss, metrics, gradients

    def add_piece(total: Parameters, indexed_piece: tuple[jax.Array, Chain]) -> tuple[Parameters, Any]:
        index, piece = indexed_piece
        (loss, metrics), gradients = value_and_grad(params, piece, jax.random.fold_in(dropout_key, index))
        weight = metrics["supervised_steps"].astype(jnp.float32)
        total = jax.tree.map(lambda accumulated, part: accumulated + part * weight, total, gradients)
        return total, (weight, {**metrics, "loss": loss})

    zeros = jax.tree.map(jnp.zeros_like, params)
    gradients, (weights, metrics) = jax.lax.scan(
        add_piece, zeros, (jnp.arange(pieces), split_batch(batch, pieces)), length=pieces
    )
    supervised_steps = weights.sum()
    scale = 1.0 / jnp.maximum(supervised_steps, 1.0)
    gradients = jax.tree.map(lambda leaf: leaf * scale, gradients)
    metrics = {name: (values.astype(jnp.float32) * weights).sum() * scale for name, values in metrics.items()}
    loss = metrics.pop("loss")
    return loss, {**metrics, "supervised_steps": supervised_steps}, gradients


def _choose(condition: jax.Array, chosen: Any, otherwise: Any) -> Any:
    """The first tree where the condition holds, else the second, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), chosen, otherwise)
