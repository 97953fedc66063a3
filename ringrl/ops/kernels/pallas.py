"""JAX's splash attention, a Pallas kernel for TPUs, for lengths that are a multiple of 128.

TPUs only. Of the Pallas kernels that JAX ships for NVIDIA, Mosaic GPU attention has no causal backward pass, and the
Triton one has no grouped heads and is deprecated in favor of tokamax, whose kernels cannot be handed a logsumexp:
there cuDNN serves. Read in JAX 0.10.2 and 0.11.2. A part's output and gradients arrive in the dtype of the query.

The kernel has no scale, so queries are given to it scaled. Where that would round them again (1 / sqrt(D) is no power
of two, in bfloat16), a scaled query is given as two numbers whose sum it is, side by side, against each key twice.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ringrl.ops.kernels.fused import FusedRows
from ringrl.ops.kernels.private import splash_parts

LANES = 128  # the kernel's smallest block


def forward(
    query: Float[Array, "B S H D"],
    key: Float[Array, "B T K D"],
    value: Float[Array, "B T K D"],
    causal: bool,
    *,
    interpret: bool = False,
) -> tuple[Float[Array, "B S H D"], Float[Array, "B S H"]]:
    """Output and logsumexp. `interpret` computes them on any device, slowly."""
    splash = _splash(query.shape[1], key.shape[1], query.shape[2], causal, interpret)
    output, (logsumexp,) = jax.vmap(splash)(*map(_heads_first, (*_scaled(query, key), value)))
    return _heads_first(output), jnp.swapaxes(logsumexp, 1, 2)


def backward(
    query: Float[Array, "B S H D"],
    key: Float[Array, "B T K D"],
    value: Float[Array, "B T K D"],
    rows: FusedRows,
    causal: bool,
    *,
    interpret: bool = False,
) -> tuple[Float[Array, "B S H D"], Float[Array, "B T K D"], Float[Array, "B T K D"]]:
    """These keys' share of the gradients, where `rows` are over all keys."""
    parts, splash = splash_parts(), _splash(query.shape[1], key.shape[1], query.shape[2], causal, interpret)
    sizes = splash.kwargs["block_sizes"]
    common = {
        "segment_ids": None,
        "sinks": None,
        "is_mqa": False,
        "mask_value": parts.mask_value,
        "attn_logits_soft_cap": None,
        "q_layout": sizes.q_layout,
        "k_layout": sizes.k_layout,
        "v_layout": sizes.v_layout,
        "mask_function": splash.kwargs["mask_function"],
        "interpret": interpret,
    }

    def one_chain(q, k, v, do, logsumexp, di):
        arrays = {"q": q, "k": k, "v": v, "do": do, "logsumexp": logsumexp, "di": di, **common}
        query_gradient = parts.query_gradient(
            bq=sizes.block_q_dq, bkv=sizes.block_kv_dq, mask_info=splash.dq_mask_info, **arrays
        )
        _, *key_gradients = parts.key_gradients(
            bq=sizes.block_q_dkv,
            bkv=sizes.block_kv_dkv,
            bkv_compute=sizes.block_kv_dkv_compute,
            mask_info=splash.dkv_mask_info,
            use_fused_bwd_kernel=False,
            **arrays,
        )
        return query_gradient, *key_gradients

    head_size = query.shape[-1]
    arrays = (*_scaled(query, key), value, rows.output_gradient.astype(query.dtype))
    sums = (jnp.swapaxes(row, 1, 2).astype(jnp.float32) for row in (rows.logsumexp, rows.row_sums))
    query_gradient, key_gradient, value_gradient = map(
        _heads_first, jax.vmap(one_chain)(*map(_heads_first, arrays), *sums)
    )
    # Both numbers of a query have the same gradient, and that of a key is the sum over its two copies.
    query_gradient = query_gradient[..., :head_size].astype(jnp.float32) * head_size**-0.5
    copies = key_gradient.astype(jnp.float32).reshape(*key.shape[:3], -1, head_size)
    return query_gradient.astype(query.dtype), copies.sum(axis=3).astype(key.dtype), value_gradient


def _scaled(query: Float[Array, "B S H D"], key: Float[Array, "B T K D"]) -> tuple[jax.Array, jax.Array]:
    """Query and key whose products are q k / sqrt(D): of head size D, or 2 D where a query takes two numbers."""
    scaled = query.astype(jnp.float32) * query.shape[-1] ** -0.5
    rounded = scaled.astype(query.dtype)
    if query.dtype == jnp.float32 or math.frexp(query.shape[-1] ** -0.5)[0] == 0.5:
        return rounded, key
    rest = (scaled - rounded.astype(jnp.float32)).astype(query.dtype)
    return jnp.concatenate([rounded, rest], axis=-1), jnp.concatenate([key, key], axis=-1)


@functools.cache  # the library looks at every pair of tokens: 5 seconds for 32K, 100 for 128K
def _splash(queries: int, keys: int, heads: int, causal: bool, interpret: bool):
    """The library's object: its forward pass, and what its backward kernels are to skip."""
    parts = splash_parts()
    mask = (parts.causal_mask if causal else parts.full_mask)((queries, keys))
    sizes = parts.block_sizes(
        **dict.fromkeys(("block_q", "block_q_dkv", "block_q_dq"), _block_size(queries)),
        **dict.fromkeys(("block_kv", "block_kv_dkv", "block_kv_dq"), _block_size(keys)),
    )
    with jax.ensure_compile_time_eval():
        splash = parts.make(
            parts.every_head([mask] * heads),
            block_sizes=sizes,
            save_residuals=True,
            head_shards=1,
            q_seq_shards=1,
            interpret=interpret,
        )
        return jax.tree.map(np.asarray, splash)  # outlives this trace, and whatever device it was made on


def _block_size(length: int) -> int:
    return next(size for size in (512, 256, LANES) if length % size == 0)


def _heads_first(array: jax.Array) -> jax.Array:
    """(B, S, H, D) <-> (B, H, S, D)."""
    return jnp.swapaxes(array, 1, 2)
