"""Adam on any pytree, independent of JAX's dtype promotion mode."""

from typing import Any

import jax
import optax

from ringrl.types import Parameters


def adam_state(params: Parameters) -> Any:
    """Initial state of Adam."""
    return optax.adam(0.0).init(params)


def adam_step(params: Parameters, gradients: Parameters, state: Any, learning_rate: float) -> tuple[Parameters, Any]:
    """Parameters and state after one step (Kingma and Ba 2015, arXiv 1412.6980)."""
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with floats
        changes, state = optax.adam(learning_rate).update(gradients, state)
    return optax.apply_updates(params, changes), state
