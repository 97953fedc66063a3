"""Gradients in a dtype of their own, narrower than that of their parameters.

JAX gives a gradient the dtype of the variable it is taken with respect to. So a gradient in another dtype is taken with
respect to a carrier: an array of zeros with the parameter's shape and the gradient's dtype that is added to the
parameter.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CastGradient:
    """A parameter whose gradient is cast, and the carrier that the gradient is taken with respect to."""

    value: jax.Array
    carrier: jax.Array


def make_carriers(parameters: Any, dtype: Any) -> Any:
    """Zeros of every parameter's shape; not allocated by a program that only differentiates with respect to them."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), parameters)


def attach_carriers(parameters: Any, carriers: Any) -> Any:
    """Pair each parameter with its carrier, for `cast_gradients` or `ringrl.parallel.gather.gather`."""
    return jax.tree.map(CastGradient, parameters, carriers)


def cast_gradients(tree: Any) -> Any:
    """Turn every parameter into an array; if it has a carrier, its gradient is cast here and goes to the carrier."""
    return jax.tree.map(
        lambda leaf: _cast(leaf.value, leaf.carrier) if isinstance(leaf, CastGradient) else leaf,
        tree,
        is_leaf=is_cast_gradient,
    )


def is_cast_gradient(leaf: Any) -> bool:
    """Whether a leaf is a parameter with its carrier: `is_leaf` for tree functions on parameters."""
    return isinstance(leaf, CastGradient)


def has_carriers(tree: Any) -> bool:
    """Whether any gradient has a dtype of its own."""
    return any(map(is_cast_gradient, jax.tree.leaves(tree, is_leaf=is_cast_gradient)))


@jax.custom_vjp
def _cast(value: jax.Array, carrier: jax.Array) -> jax.Array:
    return value


def _forward(value: jax.Array, carrier: jax.Array) -> tuple[jax.Array, jax.Array]:
    return value, jnp.zeros((), carrier.dtype)


def _backward(like_carrier: jax.Array, gradient: jax.Array) -> tuple[None, jax.Array]:
    return None, gradient.astype(like_carrier.dtype)


_cast.defvjp(_forward, _backward)
