"""Ring, Ulysses and hybrid attention against dense: values, gradients, precision, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.errors import RingRLError
from ringrl.ops import AttentionConfig, attention
from ringrl.parallel import make_mesh


def largest_difference(one, other) -> float:
    return max(float(np.abs(np.float64(a) - np.float64(b)).max()) for a, b in zip(one, other, strict=True))


def check(case, truth) -> None:
    """One program, with every order and segments."""
    with jax.enable_x64(True):
        for labels in case.labels():
            found, expected = case.results(np.float64, labels), truth(case, labels)
            assert largest_difference(found, expected) < 1e-10, labels
            assert np.abs(expected[0]).max() > 0.1


def test_values_and_gradients_equal_dense(case, truth) -> None:
    check(case, truth)


@pytest.mark.slow
def test_values_and_gradients_equal_dense_everywhere(any_case, truth) -> None:
    check(any_case, truth)
    jax.clear_caches()  # which keep programs too


@pytest.mark.parametrize(
    ("strategy", "mesh"),
    [("ring", {"ring": 4}), pytest.param("hybrid", {"ring": 2, "head": 2}, marks=pytest.mark.scale)],
)
def test_float32_is_near_the_truth(make_case, truth, strategy: str, mesh: dict) -> None:
    case = make_case(strategy, mesh, dropout=0.3)
    for labels in case.labels():
        with jax.enable_x64(True):
            expected = truth(case, labels)
        assert largest_difference(case.results(np.float32, labels), expected) < 2e-5


@pytest.mark.scale
def test_bfloat16_is_no_further_from_the_truth_than_dense(make_case) -> None:
    """Root mean square errors of the output and of each gradient; give or take a tenth.

    The query's gradient is the one that needs the tenth: row sums are taken from the output, whose weights were
    rounded for the product with the values, as every attention does that saves no weights.
    """
    case = make_case("ring", {"ring": 4}, tokens=96, blocks=(8, 16), head_size=16)
    found, dense = case.results(jnp.bfloat16), case.reference.results(jnp.bfloat16)
    exact = [np.float64(array) for array in case.arrays(jnp.bfloat16)]
    with jax.enable_x64(True):
        arrays = [jnp.asarray(array) for array in exact]
        output, pull_back = jax.vjp(lambda *a: attention(*a, config=AttentionConfig("dense")), *arrays[:3])
        truth = [np.asarray(array) for array in (output, *pull_back(arrays[3]))]
    for one, other, true in zip(found, dense, truth, strict=True):
        errors = [np.sqrt(np.mean((np.float64(array) - true) ** 2)) for array in (one, other)]
        assert errors[0] <= 1.1 * errors[1]


@pytest.mark.scale
def test_large_scores_and_hops_without_a_key(make_case) -> None:
    """Scores of +-1e4; with segments of a device's length, most hops of most devices are wholly masked."""
    mesh = make_mesh(ring=4)
    segments = jnp.broadcast_to(jnp.repeat(jnp.asarray([0, -1, 2, 3], jnp.int32), 8), (2, 32))

    def results(dtype, config):
        def loss(query, key, value):
            mixed = attention(3e3 * query, key, value, config=config, segment_ids=segments, mesh=mesh)
            return (mixed**2).sum()

        arrays = make_case("ring", {"ring": 4}, tokens=32).arrays(dtype)[:3]
        return [np.asarray(x) for x in jax.tree.leaves(jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(*arrays))]

    ring = AttentionConfig("ring", query_block_size=4, key_block_size=4)
    with jax.enable_x64(True):
        found, expected = results(np.float64, ring), results(np.float64, AttentionConfig("dense"))
    for one, other in zip(found, expected, strict=True):
        # A score of 1e4 is known to 2e-12, and the query is multiplied by 3e3.
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=2e-8)
    assert all(np.isfinite(array).all() for array in results(np.float32, ring))


@pytest.mark.scale
def test_it_maps_over_a_batch_axis(make_case) -> None:
    case = make_case("ring", {"ring": 4})
    arrays = case.arrays(np.float32)[:3]
    options = {"config": AttentionConfig("ring", query_block_size=4, key_block_size=4), "mesh": make_mesh(ring=4)}

    def one_chain(*chain):
        return attention(*(x[None] for x in chain), **options)[0]

    mapped = jax.jit(jax.vmap(one_chain))(*arrays)
    np.testing.assert_allclose(mapped, case.results(np.float32)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("strategy", "mesh", "message"),
    [
        ("ring", None, "needs a mesh"),
        ("ring", {"data": 4, "ring": 2}, "2 chains do not divide among mesh.data x mesh.fsdp = 4"),
        ("ulysses", {"head": 8}, "4 heads do not divide among 8"),
        ("hybrid", {"head": 3}, "4 heads do not divide among 3"),
    ],
)
def test_what_cannot_be_is_refused(make_case, strategy: str, mesh: dict | None, message: str) -> None:
    arrays = make_case("ring", {}).arrays(np.float32)[:3]
    with pytest.raises(RingRLError, match=message):
        attention(*arrays, config=AttentionConfig(strategy), mesh=None if mesh is None else make_mesh(**mesh))


def test_a_mesh_of_other_axes_is_refused(make_case) -> None:
    arrays = make_case("ring", {}).arrays(np.float32)[:3]
    mesh = jax.make_mesh((2,), ("ring",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    with pytest.raises(RingRLError, match="lacks 'data'"):
        attention(*arrays, config=AttentionConfig("ring"), mesh=mesh)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"ring": 16}, "ring=16 needs 16 devices and there are 8.*JAX_NUM_CPU_DEVICES=16"),
        ({"ring": -1, "head": 3}, "8 devices are not a multiple of 3.*2 would work"),
        ({"ring": -1, "head": -1}, "only one axis can be -1"),
        ({"data": 0}, "mesh.data=0"),
    ],
)
def test_impossible_meshes_are_refused(sizes: dict, message: str) -> None:
    with pytest.raises(RingRLError, match=message):
        make_mesh(**sizes)


def test_the_rest_of_the_devices() -> None:
    assert dict(make_mesh(data=2, ring=-1).shape) == {"data": 2, "fsdp": 1, "ring": 4, "head": 1}
