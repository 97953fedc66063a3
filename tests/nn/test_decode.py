"""Token by token or a few at a time over a cache: the same hidden states as one full pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ringrl.nn import decode_tokens, empty_cache, grow_cache
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

    @functools.partial(jax.jit, donate_argnums=1, compiler_options=QUICK)
    def decode(x, cache, positions, segment_ids):
        transformer = nnx.merge(model.graph, model.state)
        return decode_tokens(transformer, x, cache, positions=positions, segment_ids=segment_ids)

    cache = empty_cache(model.model, CHAINS, 8, jnp.float32)
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
        if new.max() >= cache.capacity:
            cache = grow_cache(cache, TOKENS + 5)
        hidden, cache = decode(
            x[rows, clipped],
            cache,
            jnp.asarray(np.where(wanted, new, -1), jnp.int32),
            jnp.asarray(np.where(wanted, segments[rows, clipped], -1)),
        )
        np.testing.assert_allclose(
            np.asarray(hidden)[wanted], np.asarray(whole)[rows, clipped][wanted], atol=2e-5, rtol=0
        )
        compared += wanted.sum()
        at += wanted.sum(axis=1)
    assert compared == lengths.sum()
    assert cache.capacity == TOKENS + 5
    assert (np.asarray(cache.segment_ids)[:, TOKENS:] == -1).all()


def test_a_step_copies_no_cache(network):
    """With donation a step works in place, for one context as for many: else it would cost the whole cache."""
    width, tokens = 64, 4096
    model = network(width=width)
    for chains in (1, 4):
        cache = jax.eval_shape(lambda chains=chains: empty_cache(model.model, chains, tokens, jnp.float32))
        labels = jax.ShapeDtypeStruct((chains, 1), jnp.int32)

        def decode(x, cache, positions, segment_ids):
            transformer = nnx.merge(model.graph, model.state)
            return decode_tokens(transformer, x, cache, positions=positions, segment_ids=segment_ids)

        x = jax.ShapeDtypeStruct((chains, 1, width), jnp.float32)
        program = jax.jit(decode, donate_argnums=1).lower(x, cache, labels, labels)
        memory = program.compile(QUICK).memory_analysis()
        cached = sum(leaf.size * 4 for leaf in jax.tree.leaves(cache))
        assert memory.alias_size_in_bytes == cached
        one_array = cache.keys[0].size * 4
        assert memory.temp_size_in_bytes < one_array


def test_rows_are_written_where_they_belong_and_nowhere_else():
    rows = jnp.zeros((2, 1, 4, 1))
    new = jnp.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[:, :, None, None]
    positions = jnp.asarray([[2, -1, 0], [4, 3, -4]], jnp.int32)  # a negative position, and one past the end
    written = jax.jit(write_rows)(rows, new, positions)
    assert written[:, 0, :, 0].tolist() == [[3.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 5.0]]
    for position, row in ((2, [0.0, 0.0, 1.0, 0.0]), (-1, [0.0] * 4), (4, [0.0] * 4)):
        alone = jax.jit(write_rows)(rows[:1], new[:1, :1], jnp.asarray([[position]], jnp.int32))
        assert alone[0, 0, :, 0].tolist() == row
