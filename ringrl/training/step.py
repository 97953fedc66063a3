"""One optimizer step, as a pure function of the state and the batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from ringrl.training.compiler_flags import compiler_flags
from ringrl.training.config import Precision, TrainingConfig
from ringrl.training.gradients import loss_and_gradients
from ringrl.training.optimizer import learning_rate_schedule, make_optimizer
from ringrl.training.state import Agent, TrainState, state_shardings
from ringrl.types import Chain, Metrics

TrainStep = Callable[[TrainState, Chain], tuple[TrainState, Metrics]]


def make_train_step(
    agent: Agent, training: TrainingConfig, optimizer: optax.GradientTransformation | None = None
) -> Any:
    """A jitted `train_step(state, batch) -> (state, metrics)` that donates the state.

    Over several devices it is compiled with their compiler's flags (`ringrl.training.compiler_flags`).

    Metrics are scalars of this step: loss, gradient_norm (before clipping), parameter_norm (before the update),
    learning_rate, skipped, skipped_in_row, and the agent's own. If the loss or a gradient is not finite, parameters and
    optimizer state are unchanged and the skipped counters increase.
    """
    transform = optimizer if optimizer is not None else make_optimizer(training)
    schedule = learning_rate_schedule(training)
    pieces = training.gradient_accumulation
    # None if they are as wide as the parameters anyway.
    dtype = None if training.gradient_precision is Precision.float32 else jnp.dtype(training.gradient_precision.value)

    def train_step(state: TrainState, batch: Chain) -> tuple[TrainState, Metrics]:
        dropout_key = jax.random.fold_in(state.key, state.step)
        loss, agent_metrics, gradients = loss_and_gradients(agent, state.params, batch, dropout_key, pieces, dtype)
        with jax.named_scope("optimizer"):
            return update(state, loss, agent_metrics, gradients)

    def update(state: TrainState, loss, agent_metrics: Metrics, gradients) -> tuple[TrainState, Metrics]:
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
            "learning_rate": schedule(state.step - state.skipped),  # number of updates, the optimizer's count
            "skipped": next_state.skipped,
            "skipped_in_row": next_state.skipped_in_row,
        }
        return next_state, metrics

    shardings = None
    if agent.mesh is not None:
        shardings = state_shardings(agent, transform), NamedSharding(agent.mesh, PartitionSpec())
    return jax.jit(
        train_step,
        donate_argnums=0,
        out_shardings=shardings,
        compiler_options=compiler_flags(agent.mesh),
    )


def _choose(condition: jax.Array, chosen: Any, otherwise: Any) -> Any:
    """Select the first tree if the condition holds, else the second, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), chosen, otherwise)
