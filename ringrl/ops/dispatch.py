"""The one attention function behind which every strategy stands (DESIGN.md, section 4)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ringrl.errors import RingRLError
from ringrl.ops.blockwise import blockwise_attention
from ringrl.ops.config import AttentionConfig, Strategy
from ringrl.ops.dropout import dropout_seed
from ringrl.ops.kernels import LocalOptions, choose_kernel, computing_device
from ringrl.ops.layouts import check_dealt
from ringrl.ops.parts import inside_mesh
from ringrl.ops.reference import dense_attention
from ringrl.ops.sharded import attention_of_part, ring_size, sharded_attention
from ringrl.types import SEQUENCE_AXES


def attention(
    query: Float[Array, "B S H D"],
    key: Float[Array, "B S K D"],
    value: Float[Array, "B S K D"],
    *,
    config: AttentionConfig,
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
      query, key, value: K divides H; query head h reads key head h // (H / K).
      config: the strategy and its blocks.
      mesh: the devices of a sharded strategy; the strategies of one device ignore it.
      causal: a query at position i attends to keys at positions j <= i.
      positions: the original position of each token, in any order; the default is 0 .. S - 1.
      segment_ids: tokens attend within their segment; negative is padding; the default is one segment.
      window: a query at position i attends to keys at positions j with |i - j| < window.
      dropout_rate: of attention weights, when a dropout_key is given; keyed by (chain, head, query position, key
        position), so the mask is the same whatever the strategy, layout or block size.

    Returns:
      The mixed values in the query's dtype; 0, with gradient 0, where a query has nothing to attend to.

    Raises:
      RingRLError: shapes that do not fit each other, labels other than int32, an impossible window or dropout rate,
        a kernel that cannot serve the device or the arrays, a sharded strategy whose mesh is missing, or does not
        divide the chains or heads, or positions (outside of `jit`, where they are numbers) that were not dealt in
        the configured layout.
    """
    _check(query, key, value, window, dropout_rate)
    _check_labels(query, positions=positions, segment_ids=segment_ids)
    in_parts = mesh is not None and inside_mesh()
    if in_parts and positions is None:
        raise RingRLError("attention inside jax.shard_map needs positions: a part does not know where it stands.")
    if not in_parts:
        _check_layout(config, mesh, query, positions, segment_ids)
    in_order = positions is None
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(query.shape[1], dtype=jnp.int32), query.shape[:2])
    if segment_ids is None:
        segment_ids = jnp.zeros(query.shape[:2], jnp.int32)
    if dropout_key is None:
        dropout_rate = 0.0
    seed = jnp.zeros(2, jnp.uint32) if dropout_key is None else dropout_seed(dropout_key)
    blocks = config.query_block_size, config.key_block_size
    options = LocalOptions(causal, window, dropout_rate, *blocks, config.kernel)
    if config.strategy is Strategy.blockwise:
        kernel = choose_kernel(options, computing_device(mesh), query, query.shape[1])
        options = options._replace(kernel=kernel)
    arguments = (query, key, value, positions, segment_ids, options, seed)
    match config.strategy:
        case Strategy.dense:
            labels = (positions, positions, segment_ids, segment_ids)
            masks = {"causal": causal, "window": window}
            return dense_attention(query, key, value, *labels, **masks, dropout_rate=dropout_rate, seed=seed)
        case Strategy.blockwise:
            return blockwise_attention(*arguments)
        case Strategy.ring | Strategy.ulysses | Strategy.hybrid:
            if mesh is not None and in_parts:
                return attention_of_part(config.strategy, mesh, *arguments[:-2], seed, options=options)
            return sharded_attention(config.strategy, mesh, *arguments, in_order=in_order)


def _check(query: jax.Array, key: jax.Array, value: jax.Array, window: int | None, dropout_rate: float) -> None:
    fits = query.ndim == key.ndim == 4 and key.shape == value.shape and query.shape[2] % key.shape[2] == 0
    if not fits or (query.shape[:2], query.shape[3]) != (key.shape[:2], key.shape[3]):
        raise RingRLError(
            f"attention shapes do not fit: query {query.shape}, key {key.shape}, value {value.shape}; "
            "expected (B, S, H, D), (B, S, K, D), (B, S, K, D) with K dividing H."
        )
    if window is not None and window < 1:
        raise RingRLError(f"attention window={window}: use at least 1, or None for no window.")
    if not 0.0 <= dropout_rate < 1.0:
        raise RingRLError(f"attention dropout_rate={dropout_rate} is not in [0, 1).")


def _check_labels(query: jax.Array, **labels: jax.Array | None) -> None:
    for name, values in labels.items():
        if values is None:
            continue
        if values.shape != query.shape[:2]:
            raise RingRLError(f"attention {name} have shape {values.shape}; expected {query.shape[:2]}, one a token.")
        if values.dtype != jnp.int32:
            raise RingRLError(f"attention {name} are {values.dtype}; expected int32: use {name}.astype(jnp.int32).")


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
