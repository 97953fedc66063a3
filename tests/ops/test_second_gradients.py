"""Gradients of gradients (a gradient penalty, a Hessian's products) are those of dense attention."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.ops import AttentionConfig, Strategy, attention


@pytest.mark.scale
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_blockwise_has_the_second_gradients_of_dense(dtype) -> None:
    """In bfloat16 they were 0: blocks were moved as integers, which have no tangents."""
    generator = np.random.default_rng(0)
    arrays = [jnp.asarray(generator.normal(size=(1, 16, heads, 4)), dtype) for heads in (2, 1, 1)]

    @functools.partial(jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
    def second(config, arrays):
        def loss(arrays):
            return jnp.square(attention(*arrays, config=config).astype(jnp.float32)).sum()

        def penalty(arrays):
            return sum(jnp.square(x.astype(jnp.float32)).sum() for x in jax.grad(loss)(arrays))

        return jax.grad(penalty)(arrays)

    blockwise = AttentionConfig(Strategy.blockwise, query_block_size=4, key_block_size=2)  # four pieces
    for found, expected in zip(second(blockwise, arrays), second(AttentionConfig(Strategy.dense), arrays), strict=True):
        found, expected = np.float64(found), np.float64(expected)
        tolerance = 1e-5 if dtype == jnp.float32 else 0.05
        np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())
        assert np.abs(expected).max() > 0.1
