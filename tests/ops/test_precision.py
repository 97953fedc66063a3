"""Precision against JAX's own attention on the same numbers, and against float64: no path may round a query twice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.ops import AttentionConfig, attention, decode_attention
from ringrl.ops.kernels import Logsumexp, pallas
from ringrl.ops.kernels.fused import FusedRows
from ringrl.ops.ring import merge
from ringrl.parallel import make_mesh

QUICK = {"xla_backend_optimization_level": 0}
CHAINS, TOKENS, HEADS, KEY_HEADS = 1, 128, 2, 1


def theirs(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(query, key, value, is_causal=True)


def arrays_of(dtype, head_size: int, query_size: float, key_size: float = 1.0) -> list[np.ndarray]:
    """Query, key, value and the output's gradient, exact in `dtype`."""
    generator = np.random.default_rng(0)
    sizes = ((HEADS, query_size), (KEY_HEADS, key_size), (KEY_HEADS, 1.0), (HEADS, 1.0))
    drawn = (size * generator.normal(size=(CHAINS, TOKENS, heads, head_size)) for heads, size in sizes)
    return [np.asarray(jnp.asarray(array, dtype)) for array in drawn]


def both_passes(fn, arrays) -> list[np.ndarray]:
    """Output and gradients, in float64."""

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(query, key, value, output_gradient):
        output, pull_back = jax.vjp(fn, query, key, value)
        return output, *pull_back(output_gradient)

    with jax.numpy_dtype_promotion("standard"):  # which theirs asks for
        return [np.float64(array) for array in run(*arrays)]


def in_float64(arrays) -> list[np.ndarray]:
    with jax.enable_x64(True):
        return both_passes(theirs, [np.float64(array) for array in arrays])


def error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((np.float64(found) - truth) ** 2)))


def by(strategy: str, size: int = 32):
    mesh = make_mesh(ring=2) if strategy == "ring" else None
    config = AttentionConfig(strategy, query_block_size=size, key_block_size=size)
    return functools.partial(attention, config=config, mesh=mesh)


@pytest.mark.parametrize("strategy", ["dense", "blockwise", "ring"])
@pytest.mark.parametrize("head_size", [32, 64])  # 1 / sqrt(32) is no power of two, as with 128
def test_bfloat16_is_as_near_the_truth_as_jax(strategy: str, head_size: int) -> None:
    """Large queries: rounding them once more cost 2 to 4 times the error of everything else."""
    arrays = arrays_of(jnp.bfloat16, head_size, query_size=8.0)
    truth, others = in_float64(arrays), both_passes(theirs, arrays)
    for found, true, other in zip(both_passes(by(strategy), arrays), truth, others, strict=True):
        assert 0 < error(found, true) < 1.3 * error(other, true)


@pytest.mark.parametrize("strategy", ["dense", "blockwise", "ring"])
def test_scores_of_ten_thousand_in_float32(strategy: str) -> None:
    """Weights computed again from a rounded logsumexp were wrong by a thousandth, and gradients of values with them."""
    arrays = arrays_of(np.float32, 32, query_size=2e3, key_size=1.0)
    truth, others = in_float64(arrays), both_passes(theirs, arrays)
    for found, true, other in zip(both_passes(by(strategy), arrays), truth, others, strict=True):
        assert error(found, true) < 2.0 * error(other, true)


def test_one_hot_rows_cancel_as_in_jax() -> None:
    """Scores of 1e5: nearly every row has one key, whose gradient is 0 but for rounding; all keys are in one block."""
    arrays = arrays_of(np.float32, 128, query_size=1e4)
    truth, others = in_float64(arrays), both_passes(theirs, arrays)
    for found, true, other in zip(both_passes(by("blockwise", TOKENS), arrays), truth, others, strict=True):
        assert error(found, true) < 2.5 * error(other, true)


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize(("dtype", "query_size"), [(jnp.bfloat16, 8.0), (np.float32, 2e3)])
def test_decoding_is_as_near_the_truth_as_jax(devices: int, dtype, query_size: float) -> None:
    arrays = arrays_of(dtype, 32, query_size)
    truth, others = in_float64(arrays)[0], both_passes(theirs, arrays)[0]
    query, key, value, _ = map(jnp.asarray, arrays)
    positions = jnp.arange(TOKENS, dtype=jnp.int32)[None]
    found = jax.jit(functools.partial(decode_attention, mesh=make_mesh(ring=4) if devices == 4 else None))(
        query,
        jnp.swapaxes(key, 1, 2),
        jnp.swapaxes(value, 1, 2),
        query_positions=positions,
        key_positions=positions,
        query_segments=0 * positions,
        key_segments=0 * positions,
    )
    assert error(found, truth) < 1.3 * error(others, truth)


def test_splash_attention_is_given_queries_that_are_not_rounded_again() -> None:
    """A causal part, interpreted: both passes. Row sums are of the exact output: the kernel's own is in bfloat16."""
    arrays = arrays_of(jnp.bfloat16, 32, query_size=8.0)
    truth, others = in_float64(arrays), both_passes(theirs, arrays)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(query, key, value, gradient):
        output, logsumexp = pallas.forward(query, key, value, True, interpret=True)
        wide = jnp.asarray(truth[0], jnp.float32)
        rows = FusedRows(logsumexp, (wide * gradient.astype(jnp.float32)).sum(axis=-1), gradient, wide)
        return output, *pallas.backward(query, key, value, rows, True, interpret=True)

    for found, true, other in zip(run(*arrays), truth, others, strict=True):
        assert error(np.float64(found), true) < 1.5 * error(other, true)


def test_parts_of_large_logsumexps_merge_exactly() -> None:
    """Of scores about 1e6, whose float32 neighbors are a sixteenth apart."""
    highest = jnp.full((1, 1, 1), 1e6, jnp.float32)
    log_totals = (jnp.log(jnp.float32(3.0)), jnp.log(jnp.float32(5.0)))
    parts = [Logsumexp(highest, jnp.broadcast_to(log_total, (1, 1, 1))) for log_total in log_totals]
    outputs = [jnp.full((1, 1, 1, 1), value, jnp.float32) for value in (1.0, 9.0)]
    output, logsumexp = merge((outputs[0], parts[0]), (outputs[1], parts[1]))
    np.testing.assert_allclose(output, 6.0, rtol=1e-6)  # (3 * 1 + 5 * 9) / 8
    np.testing.assert_allclose(logsumexp.log_total, np.log(8.0), rtol=1e-6)
