"""Parameters that lie in parts on many devices, made whole where they are used, inside `jax.shard_map`.

Fully sharded data parallelism (Rajbhandari et al. 2020, arXiv 1910.02054, stage 3): an all-gather when a layer needs
its parameters, and in the backward pass one reduce-scatter of its gradients.

JAX gives a gradient the dtype of what it is by. So gradients narrower than their parameters are taken by a probe that
goes with each (`Probed`), which adds nothing to its value.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from ringrl.parallel.sharding import split_axes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Probed:
    """A parameter, and an array of its shape and of its gradient's dtype, whose gradient is the parameter's."""

    value: jax.Array
    probe: jax.Array


def probed(tree: Any, probes: Any) -> Any:
    """A tree of parameters with a probe to each, to be made arrays by `gather` or `settled`."""
    return jax.tree.map(Probed, tree, probes)


def probes_of(tree: Any, dtype: Any) -> Any:
    """Zeros of every array's shape, which no program that only probes with them needs to make."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), tree)


def settled(tree: Any) -> Any:
    """Every parameter as an array; the gradients of those that are probed are rounded here, and go to their probes."""
    return jax.tree.map(
        lambda leaf: _settle(leaf.value, leaf.probe) if isinstance(leaf, Probed) else leaf, tree, is_leaf=_is_probed
    )


def any_probed(tree: Any) -> bool:
    """Whether any gradient is asked for in a dtype of its own."""
    return any(isinstance(leaf, Probed) for leaf in flattened(tree)[0])


def flattened(tree: Any) -> tuple[list[Any], Any]:
    """`jax.tree.flatten` that leaves parameters and probes together."""
    return jax.tree.flatten(tree, is_leaf=_is_probed)


def gather(tree: Any, specs: Any, dtype: Any = None) -> Any:
    """Every array whole, of which this device holds the part that its spec says.

    Arrays travel in `dtype` and are then of their own dtype again, as their gradients are all the way, or until they
    travel where they are `Probed`. Arrays that are whole already stay as they are, probed or not, and of their
    gradients, as of all over axes that a spec does not split, each device has its own share only: `sum_gradients` adds
    them up.
    """
    return jax.tree.map(lambda part, spec: _gather_leaf(part, spec, dtype), tree, specs, is_leaf=_is_probed)


def sum_gradients(gradients: Any, specs: Any, axes: tuple[str, ...]) -> Any:
    """Gradients by parameters of these specs, summed over those of `axes` over which `gather` did not sum them."""

    def over_the_others(gradient: jax.Array, spec: PartitionSpec) -> jax.Array:
        others = tuple(axis for axis in axes if axis not in split_axes(spec))
        return jax.lax.psum(gradient, others) if others else gradient

    return jax.tree.map(over_the_others, gradients, specs)


def _is_probed(leaf: Any) -> bool:
    return isinstance(leaf, Probed)


def _gather_leaf(leaf: Any, spec: PartitionSpec, dtype: Any) -> Any:
    axes = split_axes(spec)
    if not axes:
        return leaf
    part, probe = (leaf.value, leaf.probe) if isinstance(leaf, Probed) else (leaf, None)
    return _gather_along(axes, len(spec) - 1, jnp.dtype(part.dtype if dtype is None else dtype), part, probe)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _gather_along(
    axes: tuple[str, ...], dimension: int, dtype: jnp.dtype, part: jax.Array, probe: jax.Array | None
) -> jax.Array:
    return _all_gather(axes, dimension, dtype, part)


def _all_gather(axes: tuple[str, ...], dimension: int, dtype: jnp.dtype, part: jax.Array) -> jax.Array:
    # Wide again, so that a loop over blocks of tokens adds its gradients up in the parts' own dtype.
    return jax.lax.all_gather(part.astype(dtype), axes, axis=dimension, tiled=True).astype(part.dtype)


def _forward(axes, dimension, dtype, part, probe):
    # The operation itself: a rematerialization policy knows it by its name.
    return _all_gather(axes, dimension, dtype, part), (_like(part), None if probe is None else _like(probe))


def _backward(axes, dimension, dtype, likes, gradient):
    part, probe = likes
    travelling = gradient.astype(part.dtype if probe is None else probe.dtype)
    summed = jax.lax.psum_scatter(travelling, axes, scatter_dimension=dimension, tiled=True)
    return (summed, None) if probe is None else (None, summed)


def _like(array: jax.Array) -> jax.Array:
    return jnp.zeros((), array.dtype)


_gather_along.defvjp(_forward, _backward)


@jax.custom_vjp
def _settle(value: jax.Array, probe: jax.Array) -> jax.Array:
    return value


_settle.defvjp(lambda value, probe: (value, _like(probe)), lambda probe, gradient: (None, gradient.astype(probe.dtype)))
