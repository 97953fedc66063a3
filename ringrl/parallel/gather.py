"""Parameters that lie in parts on many devices, made whole where they are used, inside `jax.shard_map`.

Fully sharded data parallelism (Rajbhandari et al. 2020, arXiv 1910.02054, stage 3): an all-gather when a layer needs
its parameters, and in the backward pass one reduce-scatter of its gradients.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from ringrl.parallel.sharding import split_axes


def gather(tree: Any, specs: Any, dtype: Any = None) -> Any:
    """Every array whole, of which this device holds the part that its spec says.

    Arrays travel in `dtype` and are then of their own dtype again, as their gradients are all the way. Arrays that are
    whole already stay as they are, and of their gradients, as of all over axes that a spec does not split, each device
    has its own share only: `sum_gradients` adds them up.
    """
    return jax.tree.map(lambda part, spec: _gather_leaf(part, spec, dtype), tree, specs)


def sum_gradients(gradients: Any, specs: Any, axes: tuple[str, ...]) -> Any:
    """Gradients by parameters of these specs, summed over those of `axes` over which `gather` did not sum them."""

    def over_the_others(gradient: jax.Array, spec: PartitionSpec) -> jax.Array:
        others = tuple(axis for axis in axes if axis not in split_axes(spec))
        return jax.lax.psum(gradient, others) if others else gradient

    return jax.tree.map(over_the_others, gradients, specs)


def _gather_leaf(part: jax.Array, spec: PartitionSpec, dtype: Any) -> jax.Array:
    axes = split_axes(spec)
    if not axes:
        return part
    return _gather_along(axes, len(spec) - 1, jnp.dtype(part.dtype if dtype is None else dtype), part)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _gather_along(axes: tuple[str, ...], dimension: int, dtype: jnp.dtype, part: jax.Array) -> jax.Array:
    return _all_gather(axes, dimension, dtype, part)


def _all_gather(axes: tuple[str, ...], dimension: int, dtype: jnp.dtype, part: jax.Array) -> jax.Array:
    # Wide again, so that a loop over blocks of tokens adds its gradients up in the parts' own dtype.
    return jax.lax.all_gather(part.astype(dtype), axes, axis=dimension, tiled=True).astype(part.dtype)


def _forward(axes, dimension, dtype, part):
    # The operation itself: a rematerialisation policy knows it by its name.
    return _all_gather(axes, dimension, dtype, part), jnp.zeros((), part.dtype)


def _backward(axes, dimension, dtype, like, gradient):
    wide = gradient.astype(like.dtype)
    return (jax.lax.psum_scatter(wide, axes, scatter_dimension=dimension, tiled=True),)


_gather_along.defvjp(_forward, _backward)
