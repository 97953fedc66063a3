"""What the ring sends, how often, and what it holds in memory: read from the program, so exact."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from traffic import sent

from ringrl.ops import AttentionConfig, attention
from ringrl.parallel import make_mesh

CHAINS, HEADS, KEY_HEADS, HEAD_SIZE = 1, 4, 2, 16


def wide_bytes(found, dtype) -> int:
    """Of keys, values and their gradients alone."""
    return sum(array.size * array.dtype.itemsize * times for array, times in found if array.dtype == dtype)


def programs(tokens: int, devices: int, dtype=jnp.float32, **options):
    mesh = make_mesh(ring=devices)
    config = AttentionConfig("ring", query_block_size=16, key_block_size=16)
    shapes = [
        jax.ShapeDtypeStruct((CHAINS, tokens, heads, HEAD_SIZE), dtype) for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]

    def forward(query, key, value):
        return attention(query, key, value, config=config, mesh=mesh, **options)

    def both(query, key, value):
        return jax.grad(lambda *a: forward(*a).astype(jnp.float32).sum(), argnums=(0, 1, 2))(query, key, value)

    return forward, both, shapes


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_keys_and_values_make_one_hop_fewer_than_there_are_devices(devices: int, dtype) -> None:
    tokens = 128
    forward, both, shapes = programs(tokens, devices, dtype)
    block = 2 * CHAINS * (tokens // devices) * KEY_HEADS * HEAD_SIZE
    hops = devices - 1
    item = jnp.dtype(dtype).itemsize
    assert wide_bytes(sent(jax.make_jaxpr(forward)(*shapes).jaxpr), dtype) == block * item * hops
    found = sent(jax.make_jaxpr(both)(*shapes).jaxpr)
    # Both trips send keys and values in their own dtype; gradients, in float32, make every hop and the one home.
    gradients = block * 4 * (hops + 1 if hops else 0)
    if dtype == jnp.float32:
        assert wide_bytes(found, dtype) == 2 * block * item * hops + gradients
    else:
        assert wide_bytes(found, dtype) == 2 * block * item * hops
        assert wide_bytes(found, jnp.float32) == gradients


@pytest.mark.parametrize(("window", "hops"), [(1, 0), (2, 1), (17, 1), (18, 2), (34, 3), (1000, 7)])
def test_a_window_saves_hops(window: int, hops: int) -> None:
    """16 tokens a device: a window of 17 reaches back one device, of 18 two."""
    forward, _, shapes = programs(128, 8, window=window)
    block = 2 * CHAINS * 16 * KEY_HEADS * HEAD_SIZE * 4
    assert wide_bytes(sent(jax.make_jaxpr(forward)(*shapes).jaxpr), jnp.float32) == block * hops


def temporary_bytes(tokens: int, devices: int, layers: int = 0) -> int:
    """Of forward and backward, a device; with `layers`, inside a rematerialized scan over them."""
    mesh = make_mesh(ring=devices)
    config = AttentionConfig("ring", query_block_size=64, key_block_size=64)
    sharding = NamedSharding(mesh, PartitionSpec(None, ("ring", "head")))
    shape = jax.ShapeDtypeStruct((1, tokens, HEADS, HEAD_SIZE), jnp.float32, sharding=sharding)
    label = jax.ShapeDtypeStruct((1, tokens), jnp.int32, sharding=sharding)

    def loss(x, positions, segments):
        @jax.checkpoint
        def layer(x, _):
            return x + attention(x, x, x, config=config, mesh=mesh, positions=positions, segment_ids=segments), None

        x, _ = jax.lax.scan(layer, x, length=layers) if layers else layer(x, None)
        return (x**2).sum()

    compiled = jax.jit(jax.grad(loss), out_shardings=sharding).lower(shape, label, label).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("layers", [pytest.param(0, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.scale)])
def test_memory_is_linear_in_the_sequence_and_falls_with_devices(layers: int) -> None:
    """What depends on neither (the scores of one pair of blocks) is left out by taking differences."""
    short, long, longer = (temporary_bytes(tokens, 4, layers) for tokens in (2048, 4096, 8192))
    assert longer - long == pytest.approx(2 * (long - short), rel=0.02)
    assert temporary_bytes(8192, 8, layers) == pytest.approx(long, rel=0.02), "as many tokens a device"
    array = 8192 // 4 * HEADS * HEAD_SIZE * 4
    assert longer < 15 * array, "a few arrays of a device's tokens, not masks of all blocks"
