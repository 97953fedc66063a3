"""Keys and values of a context that grows token by token, one row per token position."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ringrl.nn.config import ModelConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyValueCache:
    """Per layer (B, K, T, D) keys (already rotated) and values; row t holds the token at position t of its context.

    Heads stand before tokens, so that decoding reads each head's rows in one run. Each context of the batch has its
    own length: a row that was not written yet belongs to a later position, which causality hides.
    """

    keys: tuple[Float[Array, "B K T D"], ...]
    values: tuple[Float[Array, "B K T D"], ...]
    segment_ids: Int[Array, "B T"]  # negative: never attended to

    @property
    def capacity(self) -> int:
        """T, in tokens."""
        return self.segment_ids.shape[1]


def empty_cache(config: ModelConfig, contexts: int, capacity: int, dtype: jnp.dtype) -> KeyValueCache:
    """A cache with nothing in it for `contexts` (B) contexts of up to `capacity` (T) tokens."""
    key_value_heads = config.key_value_heads or config.heads
    shape = (contexts, key_value_heads, capacity, config.width // config.heads)

    def rows() -> tuple[jax.Array, ...]:
        return tuple(jnp.zeros(shape, dtype) for _ in range(config.layers))

    return KeyValueCache(rows(), rows(), jnp.full((contexts, capacity), -1, jnp.int32))


def grow_cache(cache: KeyValueCache, capacity: int) -> KeyValueCache:
    """The same contexts in a cache of `capacity` (T) tokens, no fewer than now."""
    extra = capacity - cache.capacity

    def pad(rows: jax.Array) -> jax.Array:
        return jnp.pad(rows, ((0, 0), (0, 0), (0, extra), (0, 0)))

    segment_ids = jnp.pad(cache.segment_ids, ((0, 0), (0, extra)), constant_values=-1)
    return KeyValueCache(tuple(map(pad, cache.keys)), tuple(map(pad, cache.values)), segment_ids)


def write_rows(rows: Float[Array, "B K T D"], new: Float[Array, "B Q K D"], positions: Int[Array, "B Q"]) -> jax.Array:
    """`rows` with the new tokens at their positions; a negative position, or one past the end, is not written."""
    contexts = jnp.arange(rows.shape[0])[:, None]
    positions = jnp.where(positions < 0, rows.shape[2], positions)  # negative indices would wrap around
    if positions.size == 1:
        # XLA makes a scatter of one row a slice update, repeats that for each reader, and copies the cache to do so.
        positions = jnp.pad(positions, ((0, 0), (0, 1)), constant_values=rows.shape[2])
        new = jnp.pad(new, ((0, 0), (0, 1), (0, 0), (0, 0)))
    return rows.at[contexts, :, positions].set(new, mode="drop")
