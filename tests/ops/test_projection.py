"""The projection's own backward pass against JAX's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.ops.projection import project


def plain(x, kernel):
    return jnp.einsum("...m,mn->...n", x, kernel)


@pytest.mark.parametrize("tokens", [(5,), (2, 7), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradients_equal_those_of_a_plain_product(tokens, dtype):
    generator = np.random.default_rng(0)
    x, kernel, weights = (
        jnp.asarray(generator.normal(size=shape), dtype) for shape in ((*tokens, 6), (6, 10), (*tokens, 10))
    )

    def loss(product, x, kernel):
        return (product(x, kernel) * weights).astype(jnp.float32).sum()

    found, expected = (
        jax.jit(jax.value_and_grad(lambda x, kernel, product=product: loss(product, x, kernel), argnums=(0, 1)))(
            x, kernel
        )
        for product in (project, plain)
    )
    tolerance = 1e-5 if dtype == jnp.float32 else 3e-2
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(np.float32(one), np.float32(other), rtol=tolerance, atol=10 * tolerance)


def test_it_maps_over_stacked_kernels():
    """As layers and seeds are: vmap of the custom rule."""
    generator = np.random.default_rng(1)
    x, kernels = jnp.asarray(generator.normal(size=(3, 4, 6))), jnp.asarray(generator.normal(size=(3, 6, 2)))
    gradient = jax.jit(jax.vmap(jax.grad(lambda kernel, x: (project(x, kernel) ** 2).sum())))(kernels, x)
    products = np.einsum("ltm,lmn->ltn", x, kernels)
    np.testing.assert_allclose(gradient, 2 * np.einsum("ltm,ltn->lmn", x, products), rtol=1e-5, atol=1e-5)
