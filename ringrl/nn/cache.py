"""A key-value cache that grows token by token, on one device or sharded over a mesh.

Over n devices, the token at position p is stored on device p mod n. So a growing context fills all devices evenly, and
growing the cache adds rows locally on every device: no data moves. On one device, row t holds position t.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Shaped

from ringrl.devices import with_automatic_axes
from ringrl.nn.config import ModelConfig
from ringrl.types import BATCH_AXES, SEQUENCE_AXES

ROWS = PartitionSpec(BATCH_AXES, None, SEQUENCE_AXES)  # of (B, K, T, D)
LABELS = PartitionSpec(BATCH_AXES, SEQUENCE_AXES)  # of (B, T)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyValueCache:
    """Keys (already rotated) and values (B, K, T, D) per layer; `positions` gives the token position of each row.

    The head axis precedes the token axis, so that decoding reads each head's rows contiguously. Each context of the
    batch has its own length: a row not written yet belongs to a later position, which the causal mask hides. On a mesh,
    contexts are sharded over data x fsdp, and rows over ring x head.
    """

    keys: tuple[Float[Array, "B K T D"], ...]
    values: tuple[Float[Array, "B K T D"], ...]
    segment_ids: Int[Array, "B T"]  # negative: masked out
    mesh: Mesh | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def capacity(self) -> int:
        """Capacity T, in tokens."""
        return self.segment_ids.shape[1]

    @property
    def contexts(self) -> int:
        """Number of contexts B."""
        return self.segment_ids.shape[0]

    def positions(self) -> Int[Array, "B T"]:
        """The position of the token that each row holds or will hold."""
        devices = _size(self.mesh, SEQUENCE_AXES)
        device, row = jnp.divmod(jnp.arange(self.capacity, dtype=jnp.int32), self.capacity // devices)
        return jnp.broadcast_to(row * devices + device, self.segment_ids.shape)


def empty_cache(
    config: ModelConfig, contexts: int, capacity: int, dtype: jnp.dtype, mesh: Mesh | None = None
) -> KeyValueCache:
    """An empty cache for `contexts` (B) contexts of up to `capacity` (T) tokens.

    On a mesh both are rounded up to multiples of the device counts, and every device allocates only its own shard.
    """
    mesh = None if mesh is None else with_automatic_axes(mesh)
    contexts, capacity = _round_up(contexts, mesh, BATCH_AXES), _round_up(capacity, mesh, SEQUENCE_AXES)
    shape = (contexts, config.key_value_heads or config.heads, capacity, config.width // config.heads)

    def full(shape: tuple[int, ...], value: int, dtype: jnp.dtype, spec: PartitionSpec) -> jax.Array:
        sharding = None if mesh is None else NamedSharding(mesh, spec)
        return jax.jit(jnp.full, static_argnums=(0, 1, 2), out_shardings=sharding)(shape, value, dtype)

    def rows() -> tuple[jax.Array, ...]:
        return tuple(full(shape, 0, dtype, ROWS) for _ in range(config.layers))

    return KeyValueCache(rows(), rows(), full((contexts, capacity), -1, jnp.dtype(jnp.int32), LABELS), mesh)


def grow_cache(cache: KeyValueCache, capacity: int) -> KeyValueCache:
    """Copy the contexts to a cache of `capacity` (T) tokens, at least the current number; on a mesh rounded up."""
    extra = (_round_up(capacity, cache.mesh, SEQUENCE_AXES) - cache.capacity) // _size(cache.mesh, SEQUENCE_AXES)

    def pad(rows: jax.Array) -> jax.Array:
        return jnp.pad(rows, ((0, 0), (0, 0), (0, extra), (0, 0)))

    def pad_labels(labels: jax.Array) -> jax.Array:
        return jnp.pad(labels, ((0, 0), (0, extra)), constant_values=-1)

    if cache.mesh is not None:
        pad = jax.shard_map(pad, mesh=cache.mesh, in_specs=ROWS, out_specs=ROWS)
        pad_labels = jax.shard_map(pad_labels, mesh=cache.mesh, in_specs=LABELS, out_specs=LABELS)
    return dataclasses.replace(
        cache,
        keys=tuple(map(pad, cache.keys)),
        values=tuple(map(pad, cache.values)),
        segment_ids=pad_labels(cache.segment_ids),
    )


def forget_contexts(cache: KeyValueCache, chosen: Bool[Array, " B"]) -> KeyValueCache:
    """Clear the selected contexts and keep the others."""
    return dataclasses.replace(cache, segment_ids=jnp.where(chosen[:, None], jnp.int32(-1), cache.segment_ids))


def write_rows(
    rows: Shaped[Array, "B K T D"],
    new: Shaped[Array, "B Q K D"],
    positions: Int[Array, "B Q"],
    mesh: Mesh | None = None,
) -> jax.Array:
    """Write the new tokens at their positions; a negative position, or one past the end, is not written.

    On a mesh every device writes the rows that it holds, so that no data moves, independent of how XLA partitions a
    scatter.
    """
    if mesh is None:
        return _write(rows, new, positions)
    devices = _size(mesh, SEQUENCE_AXES)

    def write_own(rows: jax.Array, new: jax.Array, positions: jax.Array) -> jax.Array:
        own = (positions >= 0) & (positions % devices == jax.lax.axis_index(SEQUENCE_AXES))
        return _write(rows, new, jnp.where(own, positions // devices, -1))

    contexts = PartitionSpec(BATCH_AXES)
    return jax.shard_map(write_own, mesh=mesh, in_specs=(ROWS, contexts, contexts), out_specs=ROWS)(
        rows, new, positions
    )


def write_labels(
    labels: Int[Array, "B T"], new: Int[Array, "B Q"], positions: Int[Array, "B Q"], mesh: Mesh | None = None
) -> jax.Array:
    """`write_rows` for one number per token."""
    return write_rows(labels[:, None, :, None], new[:, :, None, None], positions, mesh)[:, 0, :, 0]


def _write(rows: jax.Array, new: jax.Array, positions: jax.Array) -> jax.Array:
    contexts = jnp.arange(rows.shape[0])[:, None]
    positions = jnp.where(positions < 0, rows.shape[2], positions)  # negative indices would wrap around
    if positions.size == 1:
        # XLA turns a scatter of one row into a slice update, repeats it for each reader, and copies the cache to do so.
        positions = jnp.pad(positions, ((0, 0), (0, 1)), constant_values=rows.shape[2])
        new = jnp.pad(new, ((0, 0), (0, 1), (0, 0), (0, 0)))
    return rows.at[contexts, :, positions].set(new, mode="drop")


def _round_up(count: int, mesh: Mesh | None, axes: tuple[str, ...]) -> int:
    return count + -count % _size(mesh, axes)


def _size(mesh: Mesh | None, axes: tuple[str, ...]) -> int:
    return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in axes)
