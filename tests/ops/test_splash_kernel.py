"""JAX's splash attention, interpreted here: parts of a row, merged, are the row; gradients follow its logsumexp."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.ops.dropout import DropoutKeys
from ringrl.ops.kernels import Logsumexp, fused, pallas
from ringrl.ops.masks import Labels
from ringrl.ops.operands import KeyBlock, LocalOptions, QueryBlock
from ringrl.ops.reference import dense_attention
from ringrl.ops.ring import merge

QUICK = {"xla_backend_optimization_level": 0}
CHAINS, TOKENS, HEADS, KEY_HEADS, HEAD_SIZE = 1, 256, 2, 1, 64
forward, backward = (functools.partial(one, interpret=True) for one in (pallas.forward, pallas.backward))


def both_parts(query, key, value, gradient):
    """Queries of the second half of a chain over all its keys: the first half is full, the second causal."""
    parts = [(key[:, :TOKENS], value[:, :TOKENS], False), (key[:, TOKENS:], value[:, TOKENS:], True)]
    found = [[x.astype(jnp.float32) for x in forward(query, *part)] for part in parts]
    found = [(output, Logsumexp(logsumexp, jnp.zeros_like(logsumexp))) for output, logsumexp in found]
    output, logsumexp = merge(*found)
    row_sums = (output * gradient.astype(jnp.float32)).sum(axis=-1)
    rows = fused.FusedRows(logsumexp.value, row_sums, gradient, output)
    gradients = [backward(query, key, value, rows, causal) for key, value, causal in parts]
    query_gradient = sum(part[0].astype(jnp.float32) for part in gradients)
    return output, query_gradient, *(jnp.concatenate([part[i] for part in gradients], axis=1) for i in (1, 2))


def dense(query, key, value, gradient):
    order = jnp.arange(2 * TOKENS, dtype=jnp.int32)[None]
    labels = Labels(order, 0 * order)
    late = jax.tree.map(lambda label: label[:, TOKENS:], labels)
    dropout = DropoutKeys(jnp.zeros(2, jnp.uint32), jnp.arange(CHAINS), jnp.arange(HEADS))

    def attend(query, key, value):
        options = LocalOptions(True, None, 0.0, TOKENS, TOKENS)
        return dense_attention(options, QueryBlock(query, late), KeyBlock(key, value, labels), dropout)

    output, pull_back = jax.vjp(attend, query, key, value)
    return output, *pull_back(gradient)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)])
def test_two_parts_make_a_row(dtype, tolerance: float) -> None:
    generator = np.random.default_rng(0)
    lengths, heads = (1, 2, 2, 1), (HEADS, KEY_HEADS, KEY_HEADS, HEADS)
    arrays = [
        jnp.asarray(generator.normal(size=(CHAINS, n * TOKENS, h, HEAD_SIZE)), dtype)
        for n, h in zip(lengths, heads, strict=True)
    ]
    found = jax.jit(both_parts, compiler_options=QUICK)(*arrays)
    expected = dense(*(x.astype(jnp.float32) for x in arrays))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.float32(one), np.float32(other), atol=tolerance * np.abs(other).max(), rtol=0)


def test_rows_that_attend_to_nothing_have_no_part_in_gradients() -> None:
    """With the logsumexp that stands for them, whatever their output's gradient is."""
    generator = np.random.default_rng(0)
    query, key, value, gradient = (jnp.asarray(generator.normal(size=(1, 128, 1, 64)), jnp.float32) for _ in range(4))
    rows = fused.FusedRows(jnp.full((1, 128, 1), fused._UNSEEN), jnp.ones((1, 128, 1)), gradient, gradient)
    for part in jax.jit(functools.partial(backward, causal=True), compiler_options=QUICK)(query, key, value, rows):
        np.testing.assert_array_equal(part, jnp.zeros_like(part))
