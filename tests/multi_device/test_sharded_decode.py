"""A cache spread over devices: dense attention's values, wherever its tokens lie, and nothing of its length sent."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ringrl.errors import RingRLError
from ringrl.ops import decode_attention
from ringrl.ops.dropout import DropoutKeys
from ringrl.ops.masks import Labels
from ringrl.ops.operands import KeyBlock, LocalOptions, QueryBlock
from ringrl.ops.reference import dense_attention
from ringrl.parallel import make_mesh

CHAINS, HEADS, HEAD_SIZE, CAPACITY = 4, 4, 8, 24
LENGTHS = (24, 17, 3, 0)  # ragged; on most devices the third chain has nothing, and the last is empty everywhere
QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time
CASES = [  # mesh, queries, key heads, window
    ({"ring": 1}, 2, 1, None),
    ({"ring": 2}, 3, 4, 5),
    ({"ring": 4}, 1, 2, None),
    ({"ring": 8}, 1, 2, None),
    ({"ring": 8}, 3, 4, 5),
    ({"ring": 8}, 2, 1, 1),
    ({"ring": 2, "head": 4}, 3, 4, None),
    ({"data": 2, "ring": 2, "head": 2}, 2, 1, 5),
    ({"fsdp": 4, "ring": 2}, 1, 2, 5),
]


def make_arrays(dtype, *, queries: int, key_heads: int = 2, seed: int = 0):
    """Query, key and value."""
    generator = np.random.default_rng(seed)
    shapes = [(CHAINS, queries, HEADS, HEAD_SIZE), *[(CHAINS, key_heads, CAPACITY, HEAD_SIZE)] * 2]
    return [jnp.asarray(generator.normal(size=shape), dtype) for shape in shapes]


def make_labels(queries: int) -> dict[str, jax.Array]:
    """Contexts of two segments, their cached tokens in any order; the queries are the last tokens of each."""
    generator = np.random.default_rng(1)
    lengths = np.asarray(LENGTHS)[:, None]
    key_positions = np.stack([generator.permutation(CAPACITY) for _ in range(CHAINS)])
    query_positions = lengths - queries + np.arange(queries)

    def segments(positions: np.ndarray) -> np.ndarray:
        return np.where((positions < 0) | (positions >= lengths), -1, positions // 9)

    labels = {
        "query_positions": query_positions,
        "key_positions": key_positions,
        "query_segments": segments(query_positions),
        "key_segments": segments(key_positions),
    }
    return {name: jnp.asarray(values, jnp.int32) for name, values in labels.items()}


def by_dense(query, key, value, *, query_positions, key_positions, query_segments, key_segments, window):
    # Without the barrier XLA on a CPU folds the transposition into a product that it cannot do in bfloat16.
    key, value = jax.lax.optimization_barrier((jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)))
    queries = QueryBlock(query, Labels(query_positions, query_segments))
    keys = KeyBlock(key, value, Labels(key_positions, key_segments))
    options = LocalOptions(True, window, 0.0, query.shape[1], key.shape[1])
    dropout = DropoutKeys(jnp.zeros(2, jnp.uint32), jnp.arange(len(query)), jnp.arange(query.shape[2]))
    return dense_attention(options, queries, keys, dropout)


def run(attend, arrays, **options):
    return np.asarray(jax.jit(functools.partial(attend, **options), compiler_options=QUICK)(*arrays))


@pytest.mark.parametrize(("sizes", "queries", "key_heads", "window"), CASES)
def test_values_equal_dense(sizes: dict[str, int], queries: int, key_heads: int, window: int | None) -> None:
    with jax.enable_x64(True):
        arrays = make_arrays(jnp.float64, queries=queries, key_heads=key_heads)
        options = {**make_labels(queries), "window": window}
        found = run(decode_attention, arrays, mesh=make_mesh(**sizes), **options)
        expected = run(by_dense, arrays, **options)
    assert np.abs(found - expected).max() < 1e-10
    assert (found[-1] == 0).all(), "a chain with nothing to attend to"
    assert np.abs(found[:3]).max(axis=(2, 3)).min() > 0.01


def test_one_device_and_no_mesh_are_the_same() -> None:
    arrays, labels = make_arrays(jnp.float32, queries=2), make_labels(2)
    alone, on_a_mesh = (run(decode_attention, arrays, mesh=mesh, **labels) for mesh in (None, make_mesh(ring=1)))
    np.testing.assert_allclose(alone, on_a_mesh, atol=1e-6)


def test_gradients_equal_dense() -> None:
    with jax.enable_x64(True):
        arrays, labels = make_arrays(jnp.float64, queries=2), make_labels(2)
        output_gradient = jnp.asarray(np.random.default_rng(2).normal(size=arrays[0].shape))

        def gradients(attend, **options):
            @functools.partial(jax.jit, compiler_options=QUICK)
            def run(*arrays):
                return jax.vjp(functools.partial(attend, **labels, **options), *arrays)[1](output_gradient)

            return run(*arrays)

        found = gradients(decode_attention, mesh=make_mesh(data=2, ring=2, head=2), window=5)
        for one, other in zip(found, gradients(by_dense, window=5), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-10)


def test_bfloat16_is_no_further_from_the_truth_than_dense() -> None:
    arrays, options = make_arrays(jnp.bfloat16, queries=3), {**make_labels(3), "window": None}
    found, dense = run(decode_attention, arrays, mesh=make_mesh(ring=8), **options), run(by_dense, arrays, **options)
    with jax.enable_x64(True):
        truth = run(by_dense, [jnp.asarray(np.float64(array)) for array in arrays], **options)
    errors = [np.sqrt(np.mean((np.float64(array) - truth) ** 2)) for array in (found, dense)]
    assert found.dtype == jnp.bfloat16
    assert errors[0] <= 1.2 * errors[1]


def test_large_scores_merge() -> None:
    """Scores of +-1e4, of which most devices hold only ones that weigh nothing."""
    query, key, value = make_arrays(jnp.float32, queries=2)
    arrays, options = (query * 3e3, key, value), {**make_labels(2), "window": None}
    found = run(decode_attention, arrays, mesh=make_mesh(ring=8), **options)
    np.testing.assert_allclose(found, run(by_dense, arrays, **options), atol=1e-5)


def collectives(program: str) -> list[tuple[str, int]]:
    """Of a compiled program: what kind, and of how many numbers."""
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter"
    found = re.findall(rf"= (.+?) ({kinds})(?:-start)?\(", program)
    sizes = [
        [np.prod([int(n) for n in dims.split(",") if n]) for dims in re.findall(r"\[([\d,]*)\]", shape)]
        for shape, _ in found
    ]
    return [(kind, int(sum(size))) for (_, kind), size in zip(found, sizes, strict=True)]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_only_a_small_reduction_travels(dtype) -> None:
    """A maximum and a sum over what the queries hold, however long the cache; and the cache is not copied."""
    tokens, queries, key_heads = 8192, 2, 2
    mesh = make_mesh(data=2, ring=4)

    def array(*shape: int, dtype, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    batch, spread = ("data", "fsdp"), ("ring", "head")
    query = array(CHAINS, queries, HEADS, HEAD_SIZE, dtype=dtype, spec=PartitionSpec(batch))
    rows = array(CHAINS, key_heads, tokens, HEAD_SIZE, dtype=dtype, spec=PartitionSpec(batch, None, spread))
    of_queries = array(CHAINS, queries, dtype=jnp.int32, spec=PartitionSpec(batch))
    of_keys = array(CHAINS, tokens, dtype=jnp.int32, spec=PartitionSpec(batch, spread))

    @jax.jit
    def decode(query, key, value, query_labels, key_labels):
        names = ("query_positions", "query_segments", "key_positions", "key_segments")
        labels = dict(zip(names, (query_labels, query_labels, key_labels, key_labels), strict=True))
        return decode_attention(query, key, value, **labels, mesh=mesh)

    compiled = decode.lower(query, rows, rows, of_queries, of_keys).compile()
    scores = CHAINS // 2 * queries * HEADS
    assert sorted(collectives(compiled.as_text())) == [("all-reduce", scores), ("all-reduce", scores * (HEAD_SIZE + 1))]
    if dtype == jnp.float32:  # a CPU widens bfloat16 before it multiplies
        local_scores = scores * (tokens // 4) * 4
        assert compiled.memory_analysis().temp_size_in_bytes < 3.1 * local_scores  # a copy of the cache is 1 or more


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"ring": 5}, "cache of 24 tokens does not divide among mesh.ring x mesh.head = 5 devices: allocate 25"),
        ({"data": 3}, "4 chains do not divide among mesh.data x mesh.fsdp = 3 devices: decode 6"),
    ],
)
def test_what_does_not_divide_is_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(RingRLError, match=message):
        decode_attention(*make_arrays(jnp.float32, queries=1), **make_labels(1), mesh=make_mesh(**sizes))


def test_a_mesh_of_other_axes_is_refused() -> None:
    mesh = jax.make_mesh((2,), ("ring",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    with pytest.raises(RingRLError, match="lacks 'data'"):
        decode_attention(*make_arrays(jnp.float32, queries=1), **make_labels(1), mesh=mesh)
