"""A million tokens on one side and a block on the other: nothing overflows, vanishes or drifts in float32."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.ops.dropout import DropoutKeys
from ringrl.ops.kernels import Rows, xla
from ringrl.ops.masks import Labels
from ringrl.ops.operands import KeyBlock, LocalOptions, QueryBlock

MILLION, BLOCK, HEAD_SIZE = 2**20, 16, 4


class Found(NamedTuple):
    """Of one head: what both passes give."""

    output: np.ndarray
    logsumexp: np.ndarray
    query_gradient: np.ndarray
    key_gradient: np.ndarray
    value_gradient: np.ndarray


def by_numpy(query, key, value, output_gradient, query_positions, key_positions) -> Found:
    """In float64, some rows at a time."""
    query, key, value, output_gradient = (np.float64(array) for array in (query, key, value, output_gradient))
    key_gradient, value_gradient, rows = np.zeros(key.shape), np.zeros(value.shape), []
    scale = HEAD_SIZE**-0.5
    for start in range(0, len(query), 2**14):
        part = slice(start, start + 2**14)
        scores = query[part] @ key.T * scale
        scores[key_positions[None, :] > query_positions[part, None]] = -np.inf
        highest = np.maximum(scores.max(axis=1, keepdims=True), -1e300)  # also of an empty row
        weights = np.exp(scores - highest)
        total = weights.sum(axis=1, keepdims=True)
        weights /= np.where(total > 0, total, 1)
        output, gradient = weights @ value, output_gradient[part]
        low = weights * (gradient @ value.T - (output * gradient).sum(axis=1, keepdims=True)) * scale
        with np.errstate(divide="ignore"):
            logsumexp = (highest + np.log(total))[:, 0]
        rows.append((output, np.where(total[:, 0] > 0, logsumexp, -np.inf), low @ key))
        key_gradient += low.T @ query[part]
        value_gradient += weights.T @ gradient
    return Found(*map(np.concatenate, zip(*rows, strict=True)), key_gradient, value_gradient)


@functools.partial(jax.jit, static_argnames="options")
def both_passes(options: LocalOptions, arrays: list[jax.Array], queries: Labels, keys: Labels) -> Found:
    query, key, value, output_gradient = (array[None, :, None] for array in arrays)
    dropout = DropoutKeys(jnp.zeros(2, jnp.uint32), jnp.arange(1), jnp.arange(1))
    arguments = (options, QueryBlock(query, queries), KeyBlock(key, value, keys), dropout)
    output, logsumexp = xla.forward(*arguments)
    rows = Rows(logsumexp, (output * output_gradient).sum(axis=-1), output_gradient, output)
    gradients = jax.tree.leaves(xla.backward(*arguments, rows))
    return Found(output[0, :, 0], logsumexp.value[0, :, 0], *(array[0, :, 0] for array in gradients))


@pytest.mark.scale
@pytest.mark.parametrize(
    ("queries", "keys", "blocks", "first_key"),
    [
        (MILLION, BLOCK, (4096, BLOCK), MILLION // 2),  # half of the rows come before every key: they are empty
        (1, MILLION, (1, 4096), 0),
    ],
    ids=["million_against_block", "row_against_million"],
)
def test_a_million_tokens(queries: int, keys: int, blocks: tuple[int, int], first_key: int) -> None:
    generator = np.random.default_rng(0)
    arrays = [
        generator.normal(size=(length, HEAD_SIZE)).astype(np.float32) for length in (queries, keys, keys, queries)
    ]
    last = max(queries, first_key + keys)
    positions = np.arange(last - queries, last, dtype=np.int32), np.arange(first_key, first_key + keys, dtype=np.int32)
    options = LocalOptions(True, None, 0.0, *blocks)
    labels = [Labels(array[None], np.zeros_like(array[None])) for array in positions]
    found = Found(*map(np.asarray, both_passes(options, arrays, *labels)))
    expected = by_numpy(*arrays, *positions)
    empty = np.isinf(expected.logsumexp)
    assert empty.sum() == min(queries, max(0, first_key - int(positions[0][0])))
    np.testing.assert_array_equal(np.isneginf(found.logsumexp), empty)
    np.testing.assert_allclose(found.logsumexp[~empty], expected.logsumexp[~empty], rtol=1e-5, atol=1e-5)
    for name in ("output", "query_gradient", "key_gradient", "value_gradient"):
        one, other = getattr(found, name), getattr(expected, name)
        assert np.isfinite(one).all(), name
        assert np.abs(one - other).max() < 2e-5 * np.abs(other).max(), name
    assert (found.output[empty] == 0).all()
    assert (found.query_gradient[empty] == 0).all()
