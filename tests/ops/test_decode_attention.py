"""A few new tokens against a cache: the same rows as dense attention over everything."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ringrl.ops import AttentionConfig, attention, decode_attention


def test_rows_equal_dense_attention():
    """Ragged contexts, two segments, padding, grouped heads, and a cache longer than what it holds."""
    chains, tokens, capacity, new = 3, 11, 16, 3
    generator = np.random.default_rng(0)
    with jax.enable_x64(True):
        query, key, value = (jnp.asarray(generator.normal(size=(chains, tokens, heads, 8))) for heads in (4, 2, 2))
        positions = jnp.broadcast_to(jnp.arange(tokens, dtype=jnp.int32), (chains, tokens))
        segments = jnp.asarray(np.array([[0] * 11, [0] * 4 + [1] * 7, [2] * 9 + [-1] * 2]), jnp.int32)
        dense = jax.jit(functools.partial(attention, config=AttentionConfig()))
        whole = dense(query, key, value, positions=positions, segment_ids=segments)

        def cached(rows):
            rows = jnp.pad(rows, ((0, 0), (0, capacity - tokens), (0, 0), (0, 0)), constant_values=3.0)
            return jnp.swapaxes(rows, 1, 2)

        unwritten = ((0, 0), (0, capacity - tokens))
        found = jax.jit(decode_attention)(
            query[:, -new:],
            cached(key),
            cached(value),
            query_positions=positions[:, -new:],
            key_positions=jnp.broadcast_to(jnp.arange(capacity, dtype=jnp.int32), (chains, capacity)),
            query_segments=segments[:, -new:],
            key_segments=jnp.pad(segments, unwritten, constant_values=-1),
        )
        found, whole = np.asarray(found), np.asarray(whole)
    np.testing.assert_allclose(found, whole[:, -new:], atol=1e-12)
    assert (found[2, -2:] == 0).all()
    assert np.abs(found[:2]).min() > 0


def test_later_rows_of_the_same_segment_are_hidden():
    """Rows that an earlier, longer context left behind lie later than the query, and are not seen."""
    generator = np.random.default_rng(1)
    query, key, value = (jnp.asarray(generator.normal(size=(1, 2, 6, 4)), jnp.float32) for _ in range(3))
    labels = {
        "key_positions": jnp.arange(6, dtype=jnp.int32)[None],
        "query_segments": jnp.zeros((1, 1), jnp.int32),
        "key_segments": jnp.zeros((1, 6), jnp.int32),
        "query_positions": jnp.array([[3]], jnp.int32),
    }
    new = jnp.swapaxes(query[:, :, 3:4], 1, 2)
    decode = jax.jit(decode_attention)
    left_behind = value.at[:, :, 4:].set(99.0)
    np.testing.assert_array_equal(decode(new, key, value, **labels), decode(new, key, left_behind, **labels))
    seen = value.at[:, :, 3].set(99.0)
    assert np.abs(decode(new, key, seen, **labels)).max() > 1
