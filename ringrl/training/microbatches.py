"""Loss and gradients of a batch in microbatches, as sums weighted by supervised steps."""

from typing import Any

import jax
import jax.numpy as jnp

from ringrl.errors import RingRLError
from ringrl.parallel.gradient_dtype import attach_carriers, make_carriers
from ringrl.training.state import Agent
from ringrl.types import Chain, Metrics, Parameters

LossAndGradients = tuple[jax.Array, Metrics, Parameters]


def split_batch(batch: Chain, pieces: int) -> Chain:
    """Reshape leaves (B, ...) to (pieces, B / pieces, ...); raises RingRLError if pieces does not divide B."""
    chains = jax.tree.leaves(batch)[0].shape[0]
    if chains % pieces:
        raise RingRLError(
            f"{chains} chains (training.batch_size, of each device) do not split into {pieces} "
            "(training.gradient_accumulation)."
        )
    return jax.tree.map(lambda leaf: leaf.reshape(pieces, chains // pieces, *leaf.shape[1:]), batch)


def sum_microbatches(
    agent: Agent, params: Parameters, batch: Chain, dropout_key: jax.Array, pieces: int, dtype: Any
) -> tuple[jax.Array, Metrics, Parameters]:
    """The number of supervised steps; and metrics, including the loss, and gradients, weighted by it and summed."""

    def weighted_loss(by: Parameters, piece: Chain, key: jax.Array) -> tuple[jax.Array, Any]:
        loss, metrics = agent.loss(by if dtype is None else attach_carriers(params, by), piece, key)
        metrics = dict(metrics)
        weight = jax.lax.stop_gradient(metrics.pop("supervised_steps").astype(loss.dtype))
        metrics = {name: value.astype(loss.dtype) * weight for name, value in {**metrics, "loss": loss}.items()}
        return metrics["loss"], (weight, metrics)

    gradient = jax.grad(weighted_loss, has_aux=True)
    by = params if dtype is None else make_carriers(params, dtype)
    if pieces == 1:
        gradients, (weight, metrics) = gradient(by, batch, dropout_key)
        return weight, metrics, gradients

    def add_piece(total: Any, indexed_piece: tuple[jax.Array, Chain]) -> tuple[Any, None]:
        index, piece = indexed_piece
        found = gradient(by, piece, jax.random.fold_in(dropout_key, index))
        return jax.tree.map(lambda sum_, part: sum_ + part.astype(sum_.dtype), total, found), None

    split = split_batch(batch, pieces)
    first = jax.tree.map(lambda leaf: leaf[0], split)
    _, others = jax.eval_shape(gradient, by, first, dropout_key)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (params, others))
    (gradients, (weight, metrics)), _ = jax.lax.scan(add_piece, nothing, (jnp.arange(pieces), split), length=pieces)
    return weight, metrics, gradients


def average(weight: jax.Array, sums: Metrics, gradients: Parameters, params: Parameters) -> LossAndGradients:
    """Means from sums over supervised steps; gradients are cast to the parameters' dtypes."""
    scale = 1.0 / jnp.maximum(weight, 1.0)
    means = {name: value * scale for name, value in sums.items()}
    loss = means.pop("loss")
    gradients = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype) * scale.astype(like.dtype), gradients, params)
    return loss, {**means, "supervised_steps": weight}, gradients
