"""AdamW with linear warm-up, a schedule, clipping by global norm, and weight decay of matrices only."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ringrl.training.config import Schedule, TrainingConfig
from ringrl.types import Parameters

_UNDECAYED = ("bias", "scale")


def learning_rate_schedule(training: TrainingConfig) -> Callable[[Any], jax.Array]:
    """Learning rate at an update, counted from 0: linear up to `warmup_steps`, then constant or cosine.

    Update k of the warm-up has (k + 1) / warmup_steps of the full rate, so the first update is not zero. The cosine
    ends at `final_fraction` of the full rate on the last of `training.steps` updates.
    """
    config = training.optimizer
    decay_steps = max(training.steps - 1 - config.warmup_steps, 1)

    def schedule(count: Any) -> jax.Array:
        update = jnp.asarray(count).astype(jnp.float32)
        warmup = jnp.minimum((update + 1.0) / max(config.warmup_steps, 1), 1.0)
        if config.schedule == Schedule.constant:
            return config.learning_rate * warmup
        progress = jnp.clip((update - config.warmup_steps) / decay_steps, 0.0, 1.0)
        cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        return config.learning_rate * warmup * (config.final_fraction + (1.0 - config.final_fraction) * cosine)

    return schedule


def decay_mask(params: Parameters) -> Any:
    """Mask of the leaves that weight decay applies to: rank 2 or more, and not named bias or scale.

    Names are needed because layers stacked for a scan give every vector an additional axis.
    """

    def decayed(path: tuple[Any, ...], leaf: Any) -> bool:
        name = jax.tree_util.keystr(path[-1:], simple=True) if path else ""
        return leaf.ndim >= 2 and not name.endswith(_UNDECAYED)

    return jax.tree_util.tree_map_with_path(decayed, params)


def make_optimizer(training: TrainingConfig) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) after clipping by global norm (`clip_norm` 0: none)."""
    config = training.optimizer
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm > 0 else optax.identity()
    return optax.chain(
        clip,
        optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
        optax.scale_by_learning_rate(learning_rate_schedule(training)),
    )
