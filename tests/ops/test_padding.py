"""Whatever stands in padding, not-a-number and infinity too, reaches no real token, forward or backward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.ops import AttentionConfig, attention, blockwise_feedforward, decode_attention
from ringrl.ops.blocks import blockwise_sum
from ringrl.parallel import make_mesh

QUICK = {"xla_backend_optimization_level": 0}
CHAINS, TOKENS, HEADS, HEAD_SIZE = 2, 16, 4, 8
SPOILT = (np.nan, np.inf)
MESHES = {"ring": {"ring": 4}, "ulysses": {"head": 4}, "hybrid": {"ring": 2, "head": 2}, "dense": {}, "blockwise": {}}


def spoil(array, padding, value: float):
    return jnp.where(padding[:, :, None, None], jnp.asarray(value, array.dtype), array)


@pytest.mark.parametrize("strategy", MESHES)
def test_no_strategy_lets_padding_through(strategy: str) -> None:
    """Queries, keys, values and the output's gradient; padding first, last and within a block."""
    generator = np.random.default_rng(0)
    arrays = [jnp.asarray(generator.normal(size=(CHAINS, TOKENS, HEADS, HEAD_SIZE)), jnp.float32) for _ in range(4)]
    segments = np.zeros((CHAINS, TOKENS), np.int32)
    segments[0, [0, 1, 6, 15]] = segments[1, 11:] = -1
    padding = jnp.asarray(segments < 0)
    mesh = make_mesh(**MESHES[strategy]) if MESHES[strategy] else None

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(query, key, value, output_gradient, segments):
        config = AttentionConfig(strategy, query_block_size=4, key_block_size=4)
        attend = functools.partial(attention, config=config, mesh=mesh, segment_ids=segments)
        output, pull_back = jax.vjp(attend, query, key, value)
        return output, *pull_back(output_gradient)

    expected = run(*arrays, segments)
    assert np.abs(expected[0]).max() > 0.1
    for value in SPOILT:
        for one, other in zip(run(*(spoil(x, padding, value) for x in arrays), segments), expected, strict=True):
            np.testing.assert_array_equal(one, other)
            assert (np.asarray(one)[segments < 0] == 0).all()


@pytest.mark.parametrize("mesh", [{}, {"ring": 4}])
def test_decoding_sees_nothing_of_rows_that_do_not_count(mesh: dict) -> None:
    """Rows not written, of other segments, later ones, and queries of padding; values and gradients."""
    generator = np.random.default_rng(0)
    query = jnp.asarray(generator.normal(size=(2, 2, HEADS, HEAD_SIZE)), jnp.float32)
    key, value = (jnp.asarray(generator.normal(size=(2, 2, 40, HEAD_SIZE)), jnp.float32) for _ in range(2))
    positions = jnp.broadcast_to(jnp.arange(40, dtype=jnp.int32), (2, 40))
    labels = {
        "query_positions": jnp.asarray([[20, 21], [30, 31]], jnp.int32),
        "key_positions": positions,
        "query_segments": jnp.asarray([[0, 0], [1, -1]], jnp.int32),
        "key_segments": jnp.where(positions < 3, -1, jnp.where(positions < 6, 7, jnp.asarray([[0], [1]], jnp.int32))),
    }
    hidden = (labels["key_segments"] != jnp.asarray([[0], [1]])) | (positions > jnp.asarray([[21], [30]]))
    unread = labels["query_segments"] < 0

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(query, key, value, output_gradient):
        attend = functools.partial(decode_attention, **labels, mesh=make_mesh(**mesh) if mesh else None)
        output, pull_back = jax.vjp(attend, query, key, value)
        return output, *pull_back(output_gradient)

    expected = run(query, key, value, jnp.ones_like(query))
    assert np.abs(expected[0][0]).max() > 0.1
    for spoilt in SPOILT:
        rows = [jnp.where(hidden[:, None, :, None], spoilt, x) for x in (key, value)]
        queries = [jnp.where(unread[:, :, None, None], spoilt, x) for x in (query, jnp.ones_like(query))]
        for one, other in zip(run(queries[0], *rows, queries[1]), expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
    # A later row that the second query sees and the first does not spoils the second alone.
    one_later = value.at[0, :, 21].set(jnp.nan)
    found = np.asarray(run(query, key, one_later, jnp.ones_like(query))[0])
    np.testing.assert_allclose(found[0, 0], expected[0][0, 0], atol=1e-6)
    assert np.isnan(found[0, 1]).all()


def normed(x):
    """A norm without epsilon: at zeros its gradient is not a number."""
    return x / jnp.sqrt(jnp.square(x).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("block_size", [4, 5, 16])
def test_a_feedforward_in_blocks_is_given_no_tokens_that_are_none(block_size: int) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 13, 6)), jnp.float32)

    def loss(scale, x):
        return (jnp.sin(blockwise_feedforward(lambda part: normed(part) * scale, x, block_size)) * x).sum()

    for one, other in zip(
        jax.jit(jax.grad(loss, argnums=(0, 1)))(jnp.float32(2.0), x),
        jax.grad(lambda scale, x: (jnp.sin(normed(x) * scale) * x).sum(), argnums=(0, 1))(jnp.float32(2.0), x),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("block_size", [4, 5, 16])
def test_a_sum_in_blocks_is_given_no_tokens_that_are_none(block_size: int) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 13, 6)), jnp.float32)
    weights = jnp.ones((2, 13), jnp.float32)

    def total(x, weights):
        return (normed(x)[..., 0] * weights).sum() + weights.size  # counts the tokens that it was given

    found = jax.jit(jax.value_and_grad(lambda x: blockwise_sum(total, (x, weights), block_size)))(x)
    expected = jax.value_and_grad(lambda x: total(x, weights))(x)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
