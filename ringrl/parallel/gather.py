"""All-gather of sharded parameters where they are used, inside `jax.shard_map`.

Fully sharded data parallelism (Rajbhandari et al. 2020, arXiv 1910.02054, stage 3): an all-gather when a layer needs
its parameters, and in the backward pass one reduce-scatter of its gradients.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from ringrl.parallel.gradient_dtype import CastGradient, cast_gradients, has_carriers, is_cast_gradient
from ringrl.parallel.sharding import split_axes


def materialize(parameters: Any, specs: Any, dtype: Any) -> tuple[Any, Callable[[Any], Any] | None]:
    """Gather all of a transformer's parameters except its layers, with gradients to be cast.

    Layers stay sharded and stacked (L, ...): the second return value gathers one of them, inside the scan.

    Args:
        parameters: nested dictionaries of arrays or `CastGradient`, the layers in `["transformer"]["layers"]`.
        specs: sharding of each array on the mesh; None if all are replicated.
        dtype: dtype in which layers are communicated.

    Returns:
        The parameters, and the function that gathers one layer's parameters; None if there is nothing to gather.
    """
    transformer = dict(parameters["transformer"])
    layers = transformer.pop("layers")
    others = {**parameters, "transformer": transformer}
    if specs is None:
        materialize_layer = cast_gradients if has_carriers(layers) else None
    else:
        specs_of_transformer = dict(specs["transformer"])
        layer_specs = [PartitionSpec(*spec[1:]) for spec in jax.tree.leaves(specs_of_transformer.pop("layers"))]
        others = gather(others, {**specs, "transformer": specs_of_transformer})
        materialize_layer = functools.partial(_materialize_layer, layer_specs, dtype)
    others = cast_gradients(others)
    return {**others, "transformer": {**others["transformer"], "layers": layers}}, materialize_layer


def gather(tree: Any, specs: Any, dtype: Any = None) -> Any:
    """All-gather every array from the shard that this device holds according to its spec.

    Arrays are communicated in `dtype` and then cast back to their own dtype, which their gradients have throughout, or
    until they are communicated if they are `CastGradient`. Replicated arrays are returned unchanged; of their
    gradients, as of all gradients over axes that a spec does not split, each device has only its own contribution:
    `sum_gradients` adds them up.
    """
    return jax.tree.map(lambda part, spec: _gather_leaf(part, spec, dtype), tree, specs, is_leaf=is_cast_gradient)


def sum_gradients(gradients: Any, specs: Any, axes: tuple[str, ...]) -> Any:
    """Sum gradients of parameters with these specs over those of `axes` over which `gather` did not sum them."""

    def over_the_others(gradient: jax.Array, spec: PartitionSpec) -> jax.Array:
        others = tuple(axis for axis in axes if axis not in split_axes(spec))
        return jax.lax.psum(gradient, others) if others else gradient

    return jax.tree.map(over_the_others, gradients, specs)


def _materialize_layer(specs: list[PartitionSpec], dtype: Any, layer: Any) -> Any:
    leaves, structure = jax.tree.flatten(layer, is_leaf=is_cast_gradient)
    return cast_gradients(jax.tree.unflatten(structure, gather(leaves, specs, dtype)))


def _gather_leaf(leaf: Any, spec: PartitionSpec, dtype: Any) -> Any:
    axes = split_axes(spec)
    if not axes:
        return leaf
    part, carrier = (leaf.value, leaf.carrier) if isinstance(leaf, CastGradient) else (leaf, None)
    return _gather_along(axes, len(spec) - 1, jnp.dtype(part.dtype if dtype is None else dtype), part, carrier)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _gather_along(
    axes: tuple[str, ...], dimension: int, dtype: jnp.dtype, part: jax.Array, carrier: jax.Array | None
) -> jax.Array:
    return _all_gather(axes, dimension, dtype, part)


def _all_gather(axes: tuple[str, ...], dimension: int, dtype: jnp.dtype, part: jax.Array) -> jax.Array:
    # Cast back, so that a loop over blocks of tokens accumulates its gradients in the shards' own dtype.
    return jax.lax.all_gather(part.astype(dtype), axes, axis=dimension, tiled=True).astype(part.dtype)


def _forward(axes, dimension, dtype, part, carrier):
    # The primitive itself, because rematerialization policies match it by name.
    return _all_gather(axes, dimension, dtype, part), (_like(part), None if carrier is None else _like(carrier))


def _backward(axes, dimension, dtype, likes, gradient):
    part, carrier = likes
    sent = gradient.astype(part.dtype if carrier is None else carrier.dtype)
    summed = jax.lax.psum_scatter(sent, axes, scatter_dimension=dimension, tiled=True)
    return (summed, None) if carrier is None else (None, summed)


def _like(array: jax.Array) -> jax.Array:
    return jnp.zeros((), array.dtype)


_gather_along.defvjp(_forward, _backward)
