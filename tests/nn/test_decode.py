"""Token by token or a few at a time over a cache: the same hidden states as one full pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ringrl.nn import empty_cache
from ringrl.nn.cache import write_rows

CHAINS, TOKENS, WIDTH = 3, 13, 16
QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_equal_the_full_pass(network, chunk):
    """Contexts of different lengths: where a chunk is longer than what is left, the rest is padding."""
    model = network()
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.normal(size=(CHAINS, TOKENS, WIDTH)), jnp.float32)
    lengths = np.array([13, 7, 10])
    positions = jnp.broadcast_to(jnp.arange(TOKENS, dtype=jnp.int32), (CHAINS, TOKENS))
    segments = np.array([[0] * 13, [0] * 3 + [1] * 10, [4] * 13], np.int32)
    segments[np.arange(TOKENS)[None, :] >= lengths[:, None]] = -1
    whole = model.jitted(model.state, x, positions, jnp.asarray(segments))

    @functools.partial(jax.jit, static_argnames="limit", donate_argnums=1, compiler_options=QUICK)
    def decode(x, cache, positions, segment_ids, limit):
        transformer = nnx.merge(model.graph, model.state)
        return transformer.decode(x, cache, positions=positions, segment_ids=segment_ids, limit=limit)

    cache = empty_cache(model.model, CHAINS, TOKENS + 5, jnp.float32)
    # What an earlier, longer context may have left behind: it must not be seen.
    cache = jax.tree.map(lambda leaf: leaf + 7.0 if leaf.dtype == jnp.float32 else leaf, cache)
    at = np.zeros(CHAINS, int)
    compared = 0
    while (at < lengths).any():
        idle = generator.random(CHAINS) < 0.3
        new = at[:, None] + np.arange(chunk)[None, :]
        wanted = (new < lengths[:, None]) & ~idle[:, None]
        clipped = np.minimum(new, TOKENS - 1)
        rows = np.arange(CHAINS)[:, None]
        hidden, cache = decode(
            x[rows, clipped],
            cache,
            jnp.asarray(np.where(wanted, new, -1), jnp.int32),
            jnp.asarray(np.where(wanted, segments[rows, clipped], -1)),
            limit=8 if new.max() < 8 else TOKENS + 2,
        )
        np.testing.assert_allclose(
            np.asarray(hidden)[wanted], np.asarray(whole)[rows, clipped][wanted], atol=2e-5, rtol=0
        )
        compared += wanted.sum()
        at += wanted.sum(axis=1)
    assert compared == lengths.sum()
    assert (np.asarray(cache.segment_ids)[:, TOKENS:] == -1).all()


def test_rows_are_written_where_they_belong_and_nowhere_else():
    rows = jnp.zeros((2, 1, 4, 1))
    new = jnp.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[:, :, None, None]
    positions = jnp.asarray([[2, -1, 0], [4, 3, -4]], jnp.int32)  # a negative position, and one past the end
    written = jax.jit(write_rows)(rows, new, positions)
    assert written[:, 0, :, 0].tolist() == [[3.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 5.0]]
