"""Blockwise attention against dense: values, gradients, memory, and the blocks it never looks at."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ringrl.ops import AttentionConfig, attention

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def largest_difference(one, other):
    return max(float(np.abs(np.float64(a) - np.float64(b)).max()) for a, b in zip(one, other, strict=True))


def test_values_and_gradients_equal_dense(case, all_labels):
    for name, labels in all_labels.items():
        with jax.enable_x64(True):
            blockwise, dense = (case.gradients(strategy, labels, np.float64) for strategy in ("blockwise", "dense"))
        assert largest_difference(blockwise, dense) < 1e-10, name
        # With a window of one token the weights are 1, whatever the query and key.
        assert all(np.abs(array).max() > 0.1 for array in (dense if case.window != 1 else dense[::3]))


def test_float32_is_near_the_truth(causal_case, all_labels):
    for name, labels in all_labels.items():
        with jax.enable_x64(True):
            truth = causal_case.gradients("dense", labels, np.float64)
        assert largest_difference(causal_case.gradients("blockwise", labels, np.float32), truth) < 2e-5, name


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

        @quick_jit
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


def test_large_logits_and_empty_rows(causal_case, labels):
    """Scores of 1e4 overflow nothing, and a query with nothing to attend to gives 0 and moves nothing."""
    empty = labels("padded").segment_ids < 0
    assert 0 < empty.sum() < empty.size
    for strategy in ("blockwise", "dense"):
        assert all(
            np.isfinite(array).all()
            for array in causal_case.gradients(strategy, labels("padded"), np.float32, scale=2e4)
        )
        for array in causal_case.gradients(strategy, labels("padded"), np.float32):
            assert np.abs(array[~empty]).max() > 0.1
            assert (array[empty] == 0).all()


def test_masked_blocks_are_never_read(causal_case):
    """A NaN behind the mask would reach everything that multiplies it, even by a weight of 0."""
    query, key, value = (np.array(array) for array in causal_case.arrays(np.float32))
    config = AttentionConfig(strategy="blockwise", query_block_size=4, key_block_size=4)
    key[:, 8:] = value[:, 8:] = np.nan  # in the causal future of the first two blocks of queries
    key[:, :4] = value[:, :4] = np.nan  # out of the window of the second block of queries
    queries = np.arange(4, 8)

    def run(query, **options):
        output = attention(query, jnp.asarray(key), jnp.asarray(value), config=config, **options)
        return (output[:, queries] ** 2).sum()

    loss, gradient = quick_jit(jax.value_and_grad(functools.partial(run, window=1)))(query)
    assert np.isfinite(loss)
    assert np.isfinite(gradient[:, queries]).all()
    segments = jnp.asarray(np.tile(np.arange(query.shape[1]) // 4, (3, 1)), jnp.int32)
    assert np.isfinite(quick_jit(functools.partial(run, segment_ids=segments, causal=False))(query))
    assert np.isnan(quick_jit(functools.partial(run, window=2))(query))  # the window that does look back


def temporary_bytes(strategy, tokens):
    config = AttentionConfig(strategy=strategy, query_block_size=256, key_block_size=256)
    array = jax.ShapeDtypeStruct((1, tokens, 2, 16), jnp.float32)

    def loss(query, key, value):
        return attention(query, key, value, config=config).sum()

    compiled = quick_jit(jax.grad(loss, argnums=(0, 1, 2))).lower(array, array, array).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_is_linear_in_the_sequence():
    quarter, half, whole = (temporary_bytes("blockwise", tokens) for tokens in (2048, 4096, 8192))
    assert whole - half < 2.2 * (half - quarter)
    assert whole < temporary_bytes("dense", 8192) / 10


def test_vmap_over_single_chains_equals_the_batch(causal_case, labels):
    """Gradients too; under vmap both branches of a skipped block are computed, and one is chosen."""
    single = labels("packed")
    together = causal_case.gradients("blockwise", single, np.float32)
    arrays, output_gradient = causal_case.arrays(np.float32), causal_case.arrays(np.float32, seed=1)[0]

    def one_chain(*arguments):
        batch_of_one = jax.tree.map(lambda array: array[None], arguments)
        return [array[0] for array in causal_case.attend_and_differentiate("blockwise", *batch_of_one)]

    apart = quick_jit(jax.vmap(one_chain))(arrays, output_gradient, single.positions, single.segment_ids)
    assert largest_difference(apart, together) < 1e-5
