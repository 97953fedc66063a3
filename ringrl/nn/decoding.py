"""Hidden states of new tokens against a key-value cache."""

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from ringrl.nn.cache import KeyValueCache, write_labels, write_rows
from ringrl.nn.transformer import Transformer
from ringrl.ops import decode_attention


def decode_tokens(
    transformer: Transformer,
    x: Float[Array, "B Q M"],
    cache: KeyValueCache,
    *,
    positions: Int[Array, "B Q"],
    segment_ids: Int[Array, "B Q"],
) -> tuple[Float[Array, "B Q M"], KeyValueCache]:
    """Hidden states of new tokens, which are written into the cache and may attend to it and to each other.

    Every row of the cache is read, so a cache of about the length of its contexts is the fastest (`grow_cache`).
    Tokens at negative positions are not written, and their outputs are meaningless. If the cache is sharded over a
    mesh, the parameters may be sharded in any way: arrays are global, and only attention depends on the device.
    """
    segments = write_labels(cache.segment_ids, segment_ids, positions, cache.mesh)
    key_positions = cache.positions()
    keys, values = list(cache.keys), list(cache.values)
    graph, stacked = nnx.split(transformer.layers)
    rotation = transformer.rotation(positions)
    for index in range(transformer.config.layers):

        def attend(query: jax.Array, key: jax.Array, value: jax.Array, index: int = index) -> jax.Array:
            keys[index] = write_rows(keys[index], key, positions, cache.mesh)
            values[index] = write_rows(values[index], value, positions, cache.mesh)
            return decode_attention(
                query,
                keys[index],
                values[index],
                query_positions=positions,
                key_positions=key_positions,
                query_segments=segment_ids,
                key_segments=segments,
                mesh=cache.mesh,
            )

        block = nnx.merge(graph, jax.tree.map(lambda leaf, index=index: leaf[index], stacked))
        x = block(x, positions, rotation, attend)
    cache = dataclasses.replace(cache, keys=tuple(keys), values=tuple(values), segment_ids=segments)
    return transformer.norm(x), cache
