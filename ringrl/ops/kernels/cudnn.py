"""cuDNN's fused attention (Dao 2023, arXiv 2307.08691) for NVIDIA, by way of JAX: bfloat16 and float16, grouped heads.

A part's output and gradients arrive in the dtype of the query; its logsumexp is float32. cuDNN takes the row sums of
the backward pass from the output, so it is given the output of the whole row, rounded as its own would be.
"""

import inspect
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ringrl.ops.kernels.fused import FusedRows
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
    rows: FusedRows,
    causal: bool,
) -> tuple[Float[Array, "B S H D"], Float[Array, "B T K D"], Float[Array, "B T K D"]]:
    """These keys' share of the gradients, where `rows` are over all keys."""
    parts = cudnn_parts()
    arguments = backward_arguments(
        inspect.signature(parts.backward).parameters,
        query,
        key,
        value,
        rows,
        mask_type=parts.masks.CAUSAL if causal else parts.masks.NO_MASK,
        layout=parts.layouts.BTNH.value,
        cudnn_version=parts.version(),
    )
    query_gradient, key_gradient, value_gradient, *_ = parts.backward(**arguments)
    return query_gradient, key_gradient, value_gradient


def backward_arguments(
    parameters: Iterable[str],
    query: Float[Array, "B S H D"],
    key: Float[Array, "B T K D"],
    value: Float[Array, "B T K D"],
    rows: FusedRows,
    **settings: Any,
) -> dict[str, Any]:
    """Arguments for the backward rule of the JAX that is installed.

    JAX 0.12 exchanged `is_training` for a function of the scores, `score_mod`, whose own arguments are among the
    residuals.

    Args:
      parameters: names of the rule's parameters, one of the sets in `private.NAMES`.
      settings: the arguments `mask_type`, `layout` and `cudnn_version`.

    Returns:
      The argument of each parameter.
    """
    names = list(parameters)
    unused: list[Any] = [jnp.zeros(0, query.dtype)] * 7  # bias, lengths, offsets and page tables
    if "score_mod" in names:
        unused.append(())
    logsumexp = jnp.swapaxes(rows.logsumexp, 1, 2).astype(jnp.float32)
    known = {
        "scale": query.shape[-1] ** -0.5,
        "seed": 0,
        "dropout_rate": 0.0,
        "variadic_args": (False, False),  # neither a bias nor its gradient
        "sliding_window_length": None,
        "is_training": True,
        "score_mod": None,
        "return_residual": False,
        "res": (query, key, value, *unused, logsumexp, rows.output.astype(query.dtype)),
        "grad_output": rows.output_gradient.astype(query.dtype),
        **settings,
    }
    return {name: known[name] for name in names}
