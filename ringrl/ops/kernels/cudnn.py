"""cuDNN's fused attention (Dao 2023, arXiv 2307.08691) for NVIDIA, by way of JAX: bfloat16 and float16, grouped heads.

A part's output and gradients arrive in the dtype of the query; its logsumexp is float32. cuDNN takes the row sums of
the backward pass from the output, so it is given the output of the whole row, rounded as its own would be.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ringrl.ops.kernels.fused import FusedKernel, Rows
from ringrl.ops.kernels.private import cudnn_parts


def forward(
    query: Float[Array, "B S H D"], key: Float[Array, "B T K D"], value: Float[Array, "B T K D"], causal: bool
) -> tuple[Float[Array, "B S H D"], Float[Array, "B S H"]]:
    """Output and logsumexp."""
    parts = cudnn_parts()
    output, logsumexp = parts.forward(
        query,
        key,
        value,
        scale=query.shape[-1] ** -0.5,
        mask_type=parts.masks.CAUSAL if causal else parts.masks.NO_MASK,
        return_residual=True,
    )
    return output, jnp.swapaxes(logsumexp, 1, 2)


def backward(
    query: Float[Array, "B S H D"],
    key: Float[Array, "B T K D"],
    value: Float[Array, "B T K D"],
    rows: Rows,
    causal: bool,
) -> tuple[Float[Array, "B S H D"], Float[Array, "B T K D"], Float[Array, "B T K D"]]:
    """These keys' share of the gradients, where `rows` are over all keys."""
    parts = cudnn_parts()
    unused: list[jax.Array] = [jnp.zeros(0, query.dtype)] * 7  # bias, lengths, offsets and page tables
    logsumexp = jnp.swapaxes(rows.logsumexp, 1, 2).astype(jnp.float32)
    query_gradient, key_gradient, value_gradient, *_ = parts.backward(
        scale=query.shape[-1] ** -0.5,
        seed=0,
        dropout_rate=0.0,
        variadic_args=(False, False),  # neither a bias nor its gradient
        mask_type=parts.masks.CAUSAL if causal else parts.masks.NO_MASK,
        layout=parts.layouts.BTNH.value,
        sliding_window_length=None,
        is_training=True,
        return_residual=False,
        res=(query, key, value, *unused, logsumexp, rows.output.astype(query.dtype)),
        grad_output=rows.output_gradient.astype(query.dtype),
    )
    return query_gradient, key_gradient, value_gradient


KERNEL = FusedKernel(forward, backward)
