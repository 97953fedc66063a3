"""Blockwise attention against dense: values, gradients, memory, and the blocks it never looks at."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.ops import AttentionConfig, attention


@functools.cache
def weighted_gradients(case, strategy):
    """Jitted (output, gradients of query, key and value) for a given gradient of the output."""

    def run(arrays, output_gradient):
        output, pull_back = jax.vjp(lambda *arrays: case.attend(strategy, *arrays), *arrays)
        return output, *pull_back(output_gradient)

    return jax.jit(run)


def both(case, dtype, scale=1.0):
    query, key, value = case.arrays(dtype)
    arrays = (query * scale, key, value)
    output_gradient = case.arrays(dtype, seed=1)[0]
    return [weighted_gradients(case, strategy)(arrays, output_gradient) for strategy in ("blockwise", "dense")]


def largest_difference(one, other):
    return max(float(np.abs(np.float64(a) - np.float64(b)).max()) for a, b in zip(one, other, strict=True))


def test_values_and_gradients_equal_dense(case):
    with jax.enable_x64(True):
        blockwise, dense = both(case, jnp.float64)
    assert all(np.abs(array).max() > 0.1 for array in dense if case.window != 1 or array is dense[0])
    assert largest_difference(blockwise, dense) < 1e-10


MOST = {"causal": True, "segments": "padded", "key_heads": 2, "permuted": True, "blocks": (5, 3)}


def test_float32_is_near_the_truth(make_case):
    case = make_case(**MOST, window=None, dropout=0.3)
    with jax.enable_x64(True):
        truth = both(case, jnp.float64)[1]
    assert largest_difference(both(case, jnp.float32)[0], truth) < 2e-5


def test_bfloat16_is_no_further_from_the_truth_than_dense():
    """Root mean square errors, of the output and of each gradient; both round, so give or take a tenth."""
    chains, tokens, heads, key_heads, head_size = 6, 64, 4, 2, 16
    generator = np.random.default_rng(0)
    arrays = [
        jnp.asarray(generator.normal(size=(chains, tokens, n, head_size)), jnp.bfloat16)
        for n in (heads, key_heads, key_heads, heads)  # query, key, value, gradient of the output
    ]

    def results(strategy, arrays):
        config = AttentionConfig(strategy=strategy, query_block_size=16, key_block_size=32)
        options = {"config": config, "dropout_rate": 0.3, "dropout_key": jax.random.key(0)}

        @jax.jit
        def run(query, key, value, output_gradient):
            output, pull_back = jax.vjp(functools.partial(attention, **options), query, key, value)
            return output, *pull_back(output_gradient)

        return [np.float64(array) for array in run(*arrays)]

    def errors(strategy):
        pairs = zip(results(strategy, arrays), truth, strict=True)
        return [np.sqrt(np.mean((result - true) ** 2)) for result, true in pairs]

    with jax.enable_x64(True):
        # The inputs are exact in bfloat16, so that only the computation differs.
        truth = results("dense", [jnp.asarray(np.float64(array)) for array in arrays])
    for ours, theirs in zip(errors("blockwise"), errors("dense"), strict=True):
        assert 1e-4 < ours < 1.12 * theirs


def test_large_logits_and_empty_rows(make_case):
    """Scores of 1e4 overflow nothing, and a query with nothing to attend to gives 0 and moves nothing."""
    case = make_case(**MOST, window=None, dropout=0.0)
    for strategy in both(case, jnp.float32, scale=2e4):
        assert all(np.isfinite(array).all() for array in strategy)
    for output, query_gradient, key_gradient, value_gradient in both(case, jnp.float32):
        empty = case.segment_ids < 0
        assert empty.any()
        for array in (output, query_gradient, key_gradient, value_gradient):
            assert np.abs(array[~empty]).max() > 0.1
            assert (array[empty] == 0).all()


def test_masked_blocks_are_never_read(make_case):
    """A NaN behind the mask would reach everything that multiplies it, even by a weight of 0."""
    tokens = 13
    query, key, value = (np.array(array) for array in make_case(**MOST, window=None, dropout=0.0).arrays(np.float32))
    config = AttentionConfig(strategy="blockwise", query_block_size=4, key_block_size=4)
    key[:, 8:] = value[:, 8:] = np.nan  # in the causal future of the first two blocks of queries
    key[:, :4] = value[:, :4] = np.nan  # out of the window of the second block of queries
    queries = np.arange(4, 8)

    def run(query, **options):
        output = attention(query, jnp.asarray(key), jnp.asarray(value), config=config, **options)
        return (output[:, queries] ** 2).sum()

    loss, gradient = jax.jit(jax.value_and_grad(functools.partial(run, window=1)))(query)
    assert np.isfinite(loss)
    assert np.isfinite(gradient[:, queries]).all()
    assert gradient.shape[1] == tokens
    segments = jnp.asarray(np.tile(np.repeat(np.arange(4), 4)[:tokens], (3, 1)), jnp.int32)
    assert np.isfinite(jax.jit(functools.partial(run, segment_ids=segments, causal=False))(query))
    assert np.isnan(jax.jit(functools.partial(run, window=2))(query))  # the window that does look back


def temporary_bytes(strategy, tokens):
    config = AttentionConfig(strategy=strategy, query_block_size=256, key_block_size=256)
    array = jax.ShapeDtypeStruct((1, tokens, 2, 16), jnp.float32)

    def loss(query, key, value):
        return attention(query, key, value, config=config).sum()

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(array, array, array).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_is_linear_in_the_sequence():
    quarter, half, whole = (temporary_bytes("blockwise", tokens) for tokens in (1024, 2048, 4096))
    assert whole - half < 2.2 * (half - quarter)
    assert whole < temporary_bytes("dense", 4096) / 10


def test_works_under_vmap(make_case):
    case = make_case(**MOST, window=None, dropout=0.0)
    arrays = [jnp.stack([case.arrays(jnp.float32, seed)[index] for seed in (2, 3)]) for index in range(3)]

    def gradients(query, key, value):
        return jax.grad(lambda *arrays: (case.attend("blockwise", *arrays) ** 2).sum(), (0, 1, 2))(query, key, value)

    together = jax.jit(jax.vmap(gradients))(*arrays)
    alone = jax.jit(gradients)
    for index in range(2):
        expected = alone(*(array[index] for array in arrays))
        assert largest_difference([array[index] for array in together], expected) < 1e-5


@pytest.mark.parametrize("strategy", ["blockwise", "dense"])
def test_vmap_over_single_chains_equals_the_batch(make_case, strategy):
    query, key, value = make_case(**MOST, window=None, dropout=0.0).arrays(jnp.float32)
    config = AttentionConfig(strategy=strategy, query_block_size=5, key_block_size=3)

    def one(query, key, value):
        return attention(query[None], key[None], value[None], config=config)[0]

    together = jax.jit(functools.partial(attention, config=config))(query, key, value)
    np.testing.assert_allclose(jax.jit(jax.vmap(one))(query, key, value), together, atol=1e-6)
