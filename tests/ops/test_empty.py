"""Batches of no chains and chains of no tokens give empty results."""

import jax
import jax.numpy as jnp
import pytest

from ringrl.ops import (
    AttentionConfig,
    Layout,
    attention,
    blockwise_feedforward,
    dealing_order,
    decode_attention,
    undealing_order,
)
from ringrl.parallel import make_mesh


@pytest.mark.parametrize("strategy", ["auto", "dense", "blockwise", "ring"])
@pytest.mark.parametrize("shape", [(0, 6), (2, 0), (0, 0)])
def test_attention(strategy: str, shape: tuple[int, int]) -> None:
    query, key = jnp.zeros((*shape, 4, 8)), jnp.zeros((*shape, 2, 8))
    mesh, config = make_mesh(ring=2), AttentionConfig(strategy)

    def attend(query, key):
        labels = jnp.zeros(shape, jnp.int32)
        return attention(query, key, key, config=config, mesh=mesh, positions=labels, segment_ids=labels)

    output, pull_back = jax.vjp(attend, query, key)
    assert output.shape == query.shape
    assert [x.shape for x in pull_back(output)] == [query.shape, key.shape]


@pytest.mark.parametrize(("chains", "queries", "tokens"), [(0, 1, 4), (2, 0, 4), (2, 1, 0)])
def test_decoding(chains: int, queries: int, tokens: int) -> None:
    new, cached = jnp.zeros((chains, queries), jnp.int32), jnp.zeros((chains, tokens), jnp.int32)
    query, key = jnp.ones((chains, queries, 4, 8)), jnp.ones((chains, 2, tokens, 8))
    labels = {"query_positions": new, "key_positions": cached, "query_segments": new, "key_segments": cached}
    output = decode_attention(query, key, key, **labels)
    assert output.shape == query.shape
    assert (output == 0).all()


@pytest.mark.parametrize("shape", [(0, 6, 3), (2, 0, 3)])
def test_feedforward(shape: tuple[int, int, int]) -> None:
    for block_size in (0, 2, 4, 6):
        assert blockwise_feedforward(jnp.sin, jnp.zeros(shape), block_size).shape == shape


@pytest.mark.parametrize("layout", Layout)
def test_layouts(layout: Layout) -> None:
    order = dealing_order(layout, 0, 4)
    assert order.shape == (0,)
    assert undealing_order(order, 0).shape == (0,)
