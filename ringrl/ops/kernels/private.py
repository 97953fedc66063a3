"""The one file that names what JAX does not publish, for kernels whose backward pass is handed a logsumexp.

cuDNN: `jax.nn.dot_product_attention` rounds its logsumexp to the dtype of the query, and differentiates one call by
itself; a ring's backward pass must take part of a row with the logsumexp of the whole row. Splash attention (TPU):
its forward pass is published, its two backward kernels are not. All names were read in JAX 0.10.2, 0.11.2 and 0.12.0;
a JAX that lacks one, or whose function has other parameters, is refused in one line.
"""

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ringrl.errors import RingRLError
from ringrl.ops.config import Kernel

OLDEST_JAX = (0, 10, 2)
FUSED = "jax._src.cudnn.fused_attention_stablehlo"
SPLASH = "jax.experimental.pallas.ops.tpu.splash_attention"
CUDA_VERSIONS = "jax._src.lib"

# Module, name, and the parameters that we give by name, once for each set of them that JAX has had ("|" is between
# them); none for what we do not call, or call with nothing.
NAMES: dict[Kernel, tuple[tuple[str, str, str], ...]] = {
    Kernel.cudnn: (
        (FUSED, "dot_product_attention", "query key value scale mask_type return_residual"),
        (
            FUSED,
            "_dot_product_attention_bwd_rule",
            "scale seed dropout_rate variadic_args mask_type layout sliding_window_length is_training return_residual "
            "res grad_output | "
            "scale seed dropout_rate variadic_args mask_type layout sliding_window_length score_mod cudnn_version "
            "return_residual res grad_output",  # from 0.12 on
        ),
        (FUSED, "check_cudnn_version", ""),
        (FUSED, "MaskType", ""),
        (FUSED, "AttentionLayout", ""),
        (CUDA_VERSIONS, "cuda_versions", ""),
    ),
    Kernel.pallas: (
        (SPLASH, "make_splash_mha", "mask block_sizes save_residuals head_shards q_seq_shards interpret"),
        *(
            (
                f"{SPLASH}.splash_attention_kernel",
                name,
                f"q k v segment_ids sinks logsumexp do di bq bkv is_mqa mask_info mask_value attn_logits_soft_cap "
                f"q_layout k_layout v_layout mask_function interpret{more}",
            )
            for name, more in (
                ("_splash_attention_bwd_dq", ""),
                ("_splash_attention_bwd_dkv", " bkv_compute use_fused_bwd_kernel"),
            )
        ),
        (f"{SPLASH}.splash_attention_kernel", "DEFAULT_MASK_VALUE", ""),
        *((SPLASH, name, "") for name in ("BlockSizes", "CausalMask", "FullMask", "MultiHeadMask")),
    ),
}


class CudnnParts(NamedTuple):
    """JAX's cuDNN attention, forward and backward, the version of cuDNN, and its words for masks."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    version: Callable[[], int]
    masks: Any
    layouts: Any


class SplashParts(NamedTuple):
    """JAX's splash attention: what makes a forward pass, and the two kernels of the backward pass."""

    make: Callable[..., Any]
    query_gradient: Callable[..., Any]
    key_gradients: Callable[..., Any]
    mask_value: float
    block_sizes: Callable[..., Any]
    causal_mask: Callable[..., Any]
    full_mask: Callable[..., Any]
    every_head: Callable[..., Any]


@functools.cache
def missing(kernel: Kernel) -> str | None:
    """A description of the JAX functions that a kernel needs and this JAX lacks; None if there are none."""
    if jax.__version_info__ < OLDEST_JAX:
        return f"JAX {jax.__version__} is older than {'.'.join(map(str, OLDEST_JAX))}"
    for module, name, parameters in NAMES[kernel]:
        found = _find(module, name)
        if found is _NOTHING:
            return f"JAX {jax.__version__} has no {module}.{name}"
        if parameters and (difference := _difference(found, parameters)):
            return f"JAX {jax.__version__}'s {module}.{name} {difference}"
    return None


def cudnn_parts() -> CudnnParts:
    """Raises RingRLError where this JAX lacks one."""
    return CudnnParts(*_parts(Kernel.cudnn)[:5])


def splash_parts() -> SplashParts:
    """Raises RingRLError where this JAX lacks one."""
    return SplashParts(*_parts(Kernel.pallas))


def cudnn_is_loaded() -> bool:
    """Whether this process can call cuDNN: the CUDA plug-in of JAX and the library are there."""
    versions = _find(CUDA_VERSIONS, "cuda_versions")
    try:
        return versions.cudnn_get_version() > 0
    except (AttributeError, RuntimeError):  # None without the plug-in; the plug-in raises without the library
        return False


_NOTHING = object()


def _find(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name, _NOTHING)
    except ImportError:
        return _NOTHING


def _difference(function: Callable[..., Any], parameters: str) -> str | None:
    """How a function's parameters differ from the last of the sets that we could give; None if any of them will do."""
    found = inspect.signature(function).parameters
    required = [name for name, parameter in found.items() if parameter.default is parameter.empty]
    difference = None
    for given in (words.split() for words in parameters.split("|")):
        if absent := [name for name in given if name not in found]:
            difference = f"has no parameter {absent[0]}"
        elif unknown := [name for name in required if name not in given]:
            difference = f"needs a parameter {unknown[0]}"
        else:
            return None
    return difference


def _parts(kernel: Kernel) -> list[Any]:
    if reason := missing(kernel):
        raise RingRLError(f"attention.kernel={kernel}: {reason}; use attention.kernel=xla.")
    return [_find(module, name) for module, name, _ in NAMES[kernel]]
