"""Meshes of JAX's own default, whose axes are explicit, in every function that takes a mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ringrl.nn import ModelConfig, empty_cache
from ringrl.ops import AttentionConfig, attention, decode_attention
from ringrl.parallel.batches import BatchParts
from ringrl.parallel.sharding import batch_sharding

AXES = ("data", "fsdp", "ring", "head")
QUICK = {"xla_backend_optimization_level": 0}
TOKENS = PartitionSpec(("data", "fsdp"), ("ring", "head"))


@pytest.fixture(scope="module")
def mesh() -> jax.sharding.Mesh:
    made = jax.make_mesh((1, 2, 2, 2), AXES)
    assert set(made.axis_types) == {AxisType.Explicit}
    return made


def arrays() -> list[jax.Array]:
    generator = np.random.default_rng(0)
    return [jnp.asarray(generator.normal(size=(2, 16, 4, 8)), jnp.float32) for _ in range(3)]


@pytest.mark.parametrize("how", ["whole", "split", "set_mesh"])
def test_values_and_gradients_are_those_of_dense(mesh, how: str) -> None:
    """Arrays that say nothing of a mesh, that are split over it, and that are computed on under `jax.set_mesh`."""

    @functools.partial(jax.jit, compiler_options=QUICK, static_argnums=0)
    def both(config, *arrays):
        attend = functools.partial(attention, config=config, mesh=None if config.strategy == "dense" else mesh)
        output, pull_back = jax.vjp(attend, *arrays)
        return output, *pull_back(output)

    expected = both(AttentionConfig("dense"), *arrays())
    given = arrays() if how == "whole" else [jax.device_put(x, NamedSharding(mesh, TOKENS)) for x in arrays()]
    if how == "set_mesh":
        with jax.set_mesh(mesh):
            found = both(AttentionConfig("ring"), *given)
    else:
        found = both(AttentionConfig("ring"), *given)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize(("strategy", "spec"), [("dense", TOKENS), ("blockwise", PartitionSpec("fsdp"))])
def test_attention_of_one_device_takes_arrays_that_are_split(mesh, strategy: str, spec: PartitionSpec) -> None:
    """No mesh is handed in: it is that of the arrays, over which the output is split as the query is."""

    @functools.partial(jax.jit, compiler_options=QUICK)
    def both(*arrays):
        config = AttentionConfig(strategy, query_block_size=6, key_block_size=5)
        output, pull_back = jax.vjp(functools.partial(attention, config=config), *arrays)
        return output, *pull_back(output)

    expected = both(*arrays())
    found = both(*(jax.device_put(x, NamedSharding(mesh, spec)) for x in arrays()))
    assert found[0].sharding.spec == PartitionSpec(*spec, *(None,) * (4 - len(spec)))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_decoding_on_one_device_takes_arrays_that_are_split(mesh) -> None:
    query, key, value = arrays()
    positions = jnp.broadcast_to(jnp.arange(16, dtype=jnp.int32), (2, 16))
    labels = {"query_positions": positions, "key_positions": positions}
    labels |= {"query_segments": 0 * positions, "key_segments": 0 * positions}
    decode = jax.jit(functools.partial(decode_attention, **labels), compiler_options=QUICK)
    given = query, jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)
    split = (jax.device_put(x, NamedSharding(mesh, PartitionSpec("fsdp"))) for x in given)
    np.testing.assert_allclose(decode(*split), decode(*given), atol=1e-5)


def test_decoding_and_its_cache(mesh) -> None:
    query, key, value = arrays()
    positions = jnp.broadcast_to(jnp.arange(16, dtype=jnp.int32), (2, 16))
    labels = {"query_positions": positions[:, -2:], "key_positions": positions}
    labels |= {"query_segments": 0 * positions[:, -2:], "key_segments": 0 * positions}
    given = query[:, -2:], jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)
    found, expected = (
        jax.jit(functools.partial(decode_attention, mesh=where, **labels), compiler_options=QUICK)(*given)
        for where in (mesh, None)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    cache = empty_cache(ModelConfig(), 2, 8, jnp.float32, mesh)
    assert set(cache.mesh.axis_types) == {AxisType.Auto}


def test_batches_lie_where_the_program_has_them(mesh) -> None:
    for sharding in (BatchParts(mesh, 2, np.arange(8)).sharding, batch_sharding(mesh)):
        assert set(sharding.mesh.axis_types) == {AxisType.Auto}
