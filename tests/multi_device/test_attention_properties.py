"""Attention over several devices is dense attention, whatever is drawn: strategy, mesh, shapes, masks, order, dropout.

Sizes come from small sets that nothing divides evenly. Every run draws the same examples; `-m slow` draws many more.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traffic import sent

from ringrl.ops import AttentionConfig, Layout, attention, check_dealt, dealing_order, decode_attention, undealing_order
from ringrl.ops.dropout import DropoutKeys
from ringrl.ops.masks import Labels
from ringrl.ops.operands import KeyBlock, LocalOptions, QueryBlock
from ringrl.ops.reference import dense_attention
from ringrl.parallel import make_mesh

QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time
PLACES = (  # strategy, mesh, and what the query heads and the chains must be multiples of
    ("ring", {"ring": 8}, 1, 1),
    ("ring", {"ring": 3}, 1, 1),
    ("ring", {"data": 2, "ring": 2, "head": 2}, 1, 2),
    ("ulysses", {"head": 2}, 2, 1),
    ("ulysses", {"ring": 2, "head": 2}, 4, 1),
    ("hybrid", {"ring": 2, "head": 2}, 2, 1),
    ("hybrid", {"fsdp": 2, "ring": 2, "head": 2}, 2, 2),
    ("hybrid", {"ring": 4, "head": 2}, 2, 1),
)
same_every_run = functools.partial(settings, deadline=None, derandomize=True, database=None)


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of attention; arrays follow from the seed."""

    strategy: str
    mesh: tuple[tuple[str, int], ...]
    chains: int
    tokens: int
    heads: int
    key_heads: int
    head_size: int
    blocks: tuple[int, int]
    causal: bool
    window: int | None
    layout: Layout
    labeled: bool
    dropout: float
    seed: int

    def arrays(self) -> list[np.ndarray]:
        """Query, key, value, and the output's gradient."""
        generator = np.random.default_rng(self.seed)
        heads = (self.heads, self.key_heads, self.key_heads, self.heads)
        return [generator.normal(size=(self.chains, self.tokens, n, self.head_size)) for n in heads]

    def labels(self) -> list[dict[str, np.ndarray]]:
        """All for the same program: dealt in the layout, or anyhow, as contiguous allows; packed, and with padding."""
        if not self.labeled:
            return [{}]
        generator = np.random.default_rng(self.seed + 1)
        shape = (self.chains, self.tokens)
        devices = int(np.prod([size for axis, size in self.mesh if axis in ("ring", "head")]))

        def dealt(layout: Layout) -> np.ndarray:
            order = dealing_order(layout, self.tokens, devices)
            return np.broadcast_to(order[order < self.tokens], shape)

        positions = [dealt(self.layout)] * 3
        if self.layout is Layout.contiguous:
            positions = [dealt(layout) for layout in Layout]
            positions += [generator.permuted(np.broadcast_to(np.arange(self.tokens), shape), axis=1)] * 2
        packed = np.sort(generator.integers(0, 3, shape), axis=1)
        segments = [packed, generator.integers(-1, 2, shape), np.zeros(shape), packed, generator.integers(-1, 1, shape)]
        pairs = zip(positions, segments, strict=False)
        return [{"positions": np.int32(one), "segment_ids": np.int32(other)} for one, other in pairs]

    def results(self, strategy: str) -> list[np.ndarray]:
        """Output, and the gradients of query, key and value, for each of the labels."""
        config = AttentionConfig(strategy, self.layout, query_block_size=self.blocks[0], key_block_size=self.blocks[1])
        options = {"causal": self.causal, "window": self.window, "dropout_rate": self.dropout}

        @functools.partial(jax.jit, compiler_options=QUICK)
        def run(query, key, value, output_gradient, labels):
            def attend(*arrays):
                mesh, dropout_key = make_mesh(**dict(self.mesh)), jax.random.key(self.seed)
                return attention(*arrays, config=config, mesh=mesh, dropout_key=dropout_key, **options, **labels)

            output, pull_back = jax.vjp(attend, query, key, value)
            return output, *pull_back(output_gradient)

        return [np.asarray(array) for labels in self.labels() for array in run(*self.arrays(), labels)]


@st.composite
def calls(draw: st.DrawFn) -> Call:
    strategy, mesh, head_multiple, chain_multiple = draw(st.sampled_from(PLACES))
    heads = draw(st.sampled_from([n for n in (1, 2, 4, 6) if n % head_multiple == 0]))
    labeled = draw(st.sampled_from((True, True, False)))
    return Call(
        strategy=strategy,
        mesh=tuple(mesh.items()),
        chains=chain_multiple * draw(st.integers(1, 2)),
        tokens=draw(st.sampled_from((1, 2, 7, 16, 21, 33))),
        heads=heads,
        key_heads=draw(st.sampled_from([n for n in range(1, heads + 1) if heads % n == 0])),
        head_size=draw(st.sampled_from((1, 3, 8))),
        blocks=draw(st.sampled_from(((1, 1), (4, 3), (3, 8), (64, 64)))),
        causal=draw(st.booleans()),
        window=draw(st.sampled_from((None, None, 1, 4, 9, 100))),
        layout=draw(st.sampled_from(Layout)) if labeled else Layout.contiguous,
        labeled=labeled,
        dropout=draw(st.sampled_from((0.0, 0.4))),
        seed=draw(st.integers(0, 2**16)),
    )


def check_call(call: Call) -> None:
    with jax.enable_x64(True):
        found, expected = call.results(call.strategy), call.results("dense")
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        where = f"{('output', 'query', 'key', 'value')[index % 4]} of labels {index // 4}"
        assert np.isfinite(one).all(), where
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10, err_msg=where)


@pytest.mark.scale
@same_every_run(max_examples=12)
@given(calls())
def test_values_and_gradients_equal_dense(call: Call) -> None:
    check_call(call)


@pytest.mark.slow
@same_every_run(max_examples=300)
@given(calls())
def test_values_and_gradients_equal_dense_everywhere(call: Call) -> None:
    check_call(call)


@pytest.mark.parametrize("tokens", [1, 5])
def test_one_array_may_be_both_positions_and_segments(tokens: int) -> None:
    """Then every token sees itself alone. (XLA may take an array padded with 0 for the same one padded with -1.)"""
    labels = jnp.broadcast_to(jnp.arange(tokens, dtype=jnp.int32), (1, tokens))
    query, key, value = np.random.default_rng(0).normal(size=(3, 1, tokens, 1, 2)).astype(np.float32)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(query, key, value, labels):
        config = AttentionConfig("ring")
        mesh = make_mesh(ring=8)
        return attention(query, key, value, config=config, mesh=mesh, positions=labels, segment_ids=labels)

    np.testing.assert_allclose(run(query, key, value, labels), value, atol=1e-6)


@same_every_run(max_examples=200)
@given(st.sampled_from(Layout), st.integers(1, 300), st.integers(1, 16))
def test_undealing_is_the_inverse_of_dealing(layout: Layout, steps: int, devices: int) -> None:
    order = dealing_order(layout, steps, devices)
    back = undealing_order(order, steps)
    assert sorted(order) == list(range(len(order)))
    assert len(order) % devices == 0
    np.testing.assert_array_equal(order[back], np.arange(steps))
    values = np.random.default_rng(0).normal(size=len(order))
    np.testing.assert_array_equal(values[order][back], values[:steps])
    check_dealt(order[None], np.where(order < steps, 0, -1)[None], layout, devices)


@same_every_run(max_examples=8)
@given(
    sizes=st.sampled_from([mesh for _, mesh, _, _ in PLACES]),
    queries=st.integers(1, 3),
    tokens_per_device=st.integers(1, 4),
    heads=st.sampled_from(((1, 1), (4, 2), (3, 1), (2, 2))),
    window=st.sampled_from((None, 1, 5)),
    seed=st.integers(0, 2**16),
)
def test_decoding_equals_dense(
    sizes: dict[str, int], queries: int, tokens_per_device: int, heads: tuple[int, int], window: int | None, seed: int
) -> None:
    mesh, generator, chains = make_mesh(**sizes), np.random.default_rng(seed), 2
    tokens = tokens_per_device * mesh.shape["ring"] * mesh.shape["head"]
    query = generator.normal(size=(chains, queries, heads[0], 4))
    key, value = generator.normal(size=(2, chains, tokens, heads[1], 4))
    labels = {
        "query_positions": generator.integers(0, tokens, (chains, queries)),
        "key_positions": generator.permuted(np.broadcast_to(np.arange(tokens), (chains, tokens)), axis=1),
        "query_segments": generator.integers(-1, 2, (chains, queries)),
        "key_segments": generator.integers(-1, 2, (chains, tokens)),
    }
    labels = {name: jnp.asarray(values, jnp.int32) for name, values in labels.items()}
    with jax.enable_x64(True):
        decode = jax.jit(functools.partial(decode_attention, mesh=mesh, window=window), compiler_options=QUICK)
        found = np.asarray(decode(query, np.swapaxes(key, 1, 2), np.swapaxes(value, 1, 2), **labels))
        options = LocalOptions(True, window, 0.0, queries, tokens)
        dropout = DropoutKeys(jnp.zeros(2, jnp.uint32), jnp.arange(chains), jnp.arange(heads[0]))
        dense = jax.jit(functools.partial(dense_attention, options, dropout=dropout), compiler_options=QUICK)
        query_labels = Labels(labels["query_positions"], labels["query_segments"])
        key_labels = Labels(labels["key_positions"], labels["key_segments"])
        expected = np.asarray(dense(QueryBlock(query, query_labels), KeyBlock(key, value, key_labels)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.scale
@same_every_run(max_examples=30)
@given(st.integers(2, 8), st.integers(1, 40), st.one_of(st.none(), st.integers(1, 45)), st.booleans())
def test_a_window_saves_the_hops_that_nobody_needs(devices: int, tokens: int, window: int | None, causal: bool) -> None:
    """As many as from a query to the furthest key that it attends to; unless causal, keys of all devices may do."""
    array = jax.ShapeDtypeStruct((1, tokens, 2, 2), jnp.float32)
    options = {"config": AttentionConfig("ring"), "mesh": make_mesh(ring=devices), "causal": causal, "window": window}
    program = jax.make_jaxpr(functools.partial(attention, **options))(array, array, array)
    per_device = -(-tokens // devices)
    floats = [array.size * times for array, times in sent(program.jaxpr) if jnp.issubdtype(array.dtype, jnp.floating)]
    hops, remainder = divmod(sum(floats), 2 * per_device * 2 * 2)
    place = np.arange(tokens)
    distance = place[:, None] - place[None, :]
    attends = (distance >= 0) & (distance < (tokens if window is None else window))
    needed = np.max((place[:, None] // per_device - place[None, :] // per_device)[attends])
    assert remainder == 0
    assert needed <= hops <= devices - 1
    if causal and window is not None and tokens % devices == 0:
        assert hops == needed
