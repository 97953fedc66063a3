"""Tokens times a matrix, with a backward pass whose operands lie as they are read."""

import jax
from jaxtyping import Array, Float


@jax.custom_vjp
def project(x: Float[Array, "*tokens M"], kernel: Float[Array, "M N"]) -> Float[Array, "*tokens N"]:
    """`x @ kernel`.

    For a kernel's gradient, XLA on a CPU transposes an operand, and computes whatever made it once more in slow
    strided loops. JAX's own rule has it transpose the output's gradient; here it is whichever is narrower.
    """
    return _product(x, kernel)


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _forward(x, kernel):
    return _product(x, kernel), (x, kernel)  # the product itself: rematerialization policies know it by name


def _backward(saved, gradient):
    x, kernel = saved
    tokens = tuple(range(x.ndim - 1))
    x_gradient = jax.lax.dot_general(gradient, kernel, (((x.ndim - 1,), (1,)), ((), ())))
    if x.shape[-1] <= gradient.shape[-1]:
        return x_gradient, jax.lax.dot_general(x, gradient, ((tokens, tokens), ((), ())))
    return x_gradient, jax.lax.dot_general(gradient, x, ((tokens, tokens), ((), ()))).T


project.defvjp(_forward, _backward)
