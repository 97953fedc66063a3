"""The one attention function behind which every strategy stands (docs/design.md, Contracts)."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, Key, UInt32

from ringrl.errors import RingRLError
from ringrl.ops.automatic import settle_by_size, settle_on_mesh
from ringrl.ops.checks import check_operands, checked_window, int32_labels
from ringrl.ops.config import AttentionConfig, Strategy
from ringrl.ops.dropout import DropoutKeys, dropout_seed
from ringrl.ops.explicit import on_automatic_axes
from ringrl.ops.kernels import choose_kernel, computing_device
from ringrl.ops.layouts import check_dealt
from ringrl.ops.masks import Labels
from ringrl.ops.operands import LocalOptions, Operands
from ringrl.ops.parts import chain_numbers, inside_mesh
from ringrl.ops.reference import dense_attention
from ringrl.ops.ring import Ring, ring_attention
from ringrl.ops.sharded import ring_size, sharded_attention
from ringrl.types import BATCH_AXES, SEQUENCE_AXES


def attention(
    query: Float[Array, "B S H D"],
    key: Float[Array, "B S K D"],
    value: Float[Array, "B S K D"],
    *,
    config: AttentionConfig | None = None,
    mesh: jax.sharding.Mesh | None = None,
    causal: bool = True,
    positions: Int[Array, "B S"] | None = None,
    segment_ids: Int[Array, "B S"] | None = None,
    window: int | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
) -> Float[Array, "B S H D"]:
    """Exact masked attention of global arrays, by the configured strategy.

    Inside `jax.shard_map` over the mesh, arrays are this device's parts, and the result is too: positions are needed.

    Args:
      query, key, value: floats of one dtype; K divides H; query head h reads key head h // (H / K).
      config: the strategy and its blocks; by default `AttentionConfig()`, which chooses by the mesh and the sizes.
      mesh: the devices of a sharded strategy; the strategies of one device ignore it.
      causal: a query at position i attends to keys at positions j <= i.
      positions: the original position of each token, in any order, any int32; the default is 0 .. S - 1.
      segment_ids: tokens attend within their segment; the default is one segment. Negative is padding, of which
        query, key, value and the output's gradient may be anything, not-a-number too.
      window: a query at position i attends to keys at positions j with `|i - j| < window`.
      dropout_rate: of attention weights, when a dropout_key is given.
      dropout_key: of the mask, which (chain, head, query position, key position) decide besides, so it is the same
        whatever the strategy, layout or block size; without a key there is no dropout.

    Returns:
      The mixed values in the query's dtype; 0, with gradient 0, where a query has nothing to attend to.

    Raises:
      RingRLError: shapes or dtypes that do not fit each other, labels other than int32 (lists of numbers are taken),
        an impossible window or dropout rate, a kernel that cannot serve the device or the arrays, a sharded strategy
        whose mesh is missing, or does not divide the chains or heads, or positions (outside of `jit`, where they are
        numbers) that were not dealt in the configured layout.
    """
    config = AttentionConfig() if config is None else config
    check_operands(query, key, value, dropout_rate)
    window = checked_window("attention", window)
    query, key, value = (jnp.asarray(array) for array in (query, key, value))  # NumPy's float64 as JAX takes it
    if positions is not None:
        positions = int32_labels("attention", "positions", positions, query.shape[:2])
    if segment_ids is not None:
        segment_ids = int32_labels("attention", "segment_ids", segment_ids, query.shape[:2])
    if query.size == 0:
        return jnp.zeros(query.shape, query.dtype)
    in_order, in_parts = positions is None, mesh is not None and inside_mesh()
    if mesh is not None:
        config = settle_on_mesh(config, mesh.shape)
    config = settle_by_size(config, *query.shape[:3])
    if in_parts and in_order:
        raise RingRLError("attention inside jax.shard_map needs positions: a part does not know where it stands.")
    if not in_parts:
        _check_layout(config, mesh, query, positions, segment_ids)
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(query.shape[1], dtype=jnp.int32), query.shape[:2])
    if segment_ids is None:
        segment_ids = jnp.zeros(query.shape[:2], jnp.int32)
    rate, seed = (0.0, jnp.zeros(2, jnp.uint32)) if dropout_key is None else (dropout_rate, dropout_seed(dropout_key))
    options = LocalOptions(causal, window, rate, config.query_block_size, config.key_block_size, config.kernel)
    operands = Operands(query, key, value, Labels(positions, segment_ids))
    attend = functools.partial(_attend, config.strategy, options, in_order)
    if in_parts:
        return attend(mesh, operands, seed)
    spec = jax.typeof(query).sharding.spec if mesh is None else _spec(query, mesh)
    return on_automatic_axes(attend, mesh, spec, operands, seed)


def _attend(
    strategy: Strategy,
    options: LocalOptions,
    in_order: bool,
    mesh: jax.sharding.Mesh | None,
    operands: Operands,
    seed: UInt32[Array, "2"],
) -> Float[Array, "B S H D"]:
    """Attention by the strategy, of arguments that are checked and complete."""
    if strategy.is_sharded:
        return sharded_attention(strategy, mesh, options, operands, seed, in_order=in_order)
    chains, tokens, heads, _ = operands.query.shape
    dropout = DropoutKeys(seed, chain_numbers(chains), jnp.arange(heads))
    if strategy is Strategy.dense:
        return dense_attention(options, operands.queries, operands.keys, dropout)
    options = options._replace(kernel=choose_kernel(options, computing_device(mesh), operands.query, tokens))
    return ring_attention(Ring(), options, operands, dropout)  # blockwise: a ring of one device


def _spec(query: jax.Array, mesh: jax.sharding.Mesh) -> PartitionSpec:
    """How the output is split: as the input, over the axes whose devices divide it."""

    def axes(wanted: tuple[str, ...], length: int) -> tuple[str, ...] | None:
        present = tuple(axis for axis in wanted if axis in mesh.shape)
        return present if length % math.prod(mesh.shape[axis] for axis in present) == 0 else None

    return PartitionSpec(axes(BATCH_AXES, query.shape[0]), axes(SEQUENCE_AXES, query.shape[1]))


def _check_layout(
    config: AttentionConfig,
    mesh: jax.sharding.Mesh | None,
    query: jax.Array,
    positions: jax.Array | None,
    segment_ids: jax.Array | None,
) -> None:
    """Where positions are numbers: outside of `jit`, or by default. The trainer checks its first batch by itself."""
    if config.strategy.is_sharded and mesh is not None and set(SEQUENCE_AXES) <= set(mesh.shape):
        given = np.arange(query.shape[1])[None] if positions is None else positions
        check_dealt(given, segment_ids, config.layout, ring_size(config.strategy, mesh))
