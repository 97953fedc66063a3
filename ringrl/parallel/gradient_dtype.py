"""Gradients in a dtype of their own, narrower than their parameters.

JAX gives a gradient the dtype of what it is taken by. So a gradient in another dtype is taken by a carrier: an array of
the parameter's shape and of the gradient's dtype that goes with the parameter and adds nothing to its value.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CastGradient:
    """A parameter whose gradient is cast, and the carrier that it is taken by."""

    value: jax.Array
    carrier: jax.Array


def make_carriers(parameters: Any, dtype: Any) -> Any:
    """Zeros of every parameter's shape; a program that only differentiates by them does not make them."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), parameters)


def attach_carriers(parameters: Any, carriers: Any) -> Any:
    """Parameters each with its carrier, to be made arrays by `cast_gradients` or `ringrl.parallel.gather.gather`."""
    return jax.tree.map(CastGradient, parameters, carriers)


def cast_gradients(tree: Any) -> Any:
    """Every parameter as an array; where it has a carrier its gradient is cast here, and goes to the carrier."""
    return jax.tree.map(
        lambda leaf: _cast(leaf.value, leaf.carrier) if isinstance(leaf, CastGradient) else leaf,
        tree,
        is_leaf=is_cast_gradient,
    )


def is_cast_gradient(leaf: Any) -> bool:
    """Whether a leaf is a parameter with its carrier: `is_leaf` of functions on trees of parameters."""
    return isinstance(leaf, CastGradient)


def has_carriers(tree: Any) -> bool:
    """Whether any gradient is asked for in a dtype of its own."""
    return any(map(is_cast_gradient, jax.tree.leaves(tree, is_leaf=is_cast_gradient)))


@jax.custom_vjp
def _cast(value: jax.Array, carrier: jax.Array) -> jax.Array:
    return value


def _forward(value: jax.Array, carrier: jax.Array) -> tuple[jax.Array, jax.Array]:
    return value, jnp.zeros((), carrier.dtype)


def _backward(like_carrier: jax.Array, gradient: jax.Array) -> tuple[None, jax.Array]:
    return None, gradient.astype(like_carrier.dtype)


_cast.defvjp(_forward, _backward)
