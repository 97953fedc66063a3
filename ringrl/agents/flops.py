"""Model FLOPs of a training step."""

import jax

from ringrl.nn import ModelConfig
from ringrl.types import Parameters


def count_train_flops(shapes: Parameters, model: ModelConfig, tokens_per_step: int, steps: int) -> float:
    """Model FLOPs of one training step on one chain: 6 per parameter and token, plus causal attention.

    Only matrix parameters count. Attention takes 2 S^2 M FLOPs per layer in the forward pass (half of the 4 S^2 M
    of its two products, for causality) and three times that in total. Recomputation is not counted.
    """
    matrices = dict(shapes)
    embedding = dict(matrices.pop("embedding"))
    action = matrices.pop("action")
    per_token = sum(leaf.size for leaf in jax.tree.leaves(matrices) if leaf.ndim > 2)
    per_step = sum(leaf.size for leaf in jax.tree.leaves((embedding["projections"], action)) if leaf.ndim > 1)
    tokens = steps * tokens_per_step
    attention = 2.0 * tokens**2 * model.width * model.layers
    return 6.0 * (per_token * tokens + per_step * steps) + 3.0 * attention
