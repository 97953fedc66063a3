"""The local kernels, and the choice of one for a call: the one asked for, or the fastest that serves."""

from typing import Protocol

import jax

from ringrl.errors import RingRLError
from ringrl.ops.config import Kernel
from ringrl.ops.kernels import cudnn, pallas, private, xla
from ringrl.ops.kernels.fused import FusedKernel
from ringrl.ops.kernels.interface import LocalKernel
from ringrl.ops.notes import log_once
from ringrl.ops.operands import LocalOptions

KERNELS: dict[Kernel, LocalKernel] = {
    Kernel.xla: xla,
    Kernel.cudnn: FusedKernel(cudnn),
    Kernel.pallas: FusedKernel(pallas),
}
SPLASH_TOKENS = 2**16  # of a device, up to which `auto` takes splash attention: it looks at every pair of them


class Device(Protocol):
    """A device of JAX, or of a topology that is not here. A GPU has a `compute_capability` too."""

    platform: str
    device_kind: str


def choose_kernel(options: LocalOptions, device: Device, query: jax.Array, tokens: int) -> Kernel:
    """`options.kernel`, with `auto` settled for a device of the kind that computes and `tokens` in a local block.

    Raises RingRLError for a kernel that cannot serve; `auto` takes XLA then, and logs once why.
    """
    if options.kernel is Kernel.xla:
        return Kernel.xla
    if options.kernel is not Kernel.auto:
        if reason := obstacle(options.kernel, options, device, query, tokens):
            raise RingRLError(f"attention.kernel={options.kernel}: {reason}; use attention.kernel=xla (or auto).")
        return options.kernel
    kernel = {"gpu": Kernel.cudnn, "tpu": Kernel.pallas}.get(_platform(device))
    if kernel is None:
        return _fall_back(f"no fused kernel serves the platform {_platform(device)}")
    if options.window is not None:
        return _fall_back(f"{kernel} has no window")  # exact with one, but XLA would compute the blocks at its edge
    if kernel is Kernel.pallas and tokens > SPLASH_TOKENS:
        return _fall_back(f"pallas would prepare its masks for minutes for {tokens} tokens on each device")
    if reason := obstacle(kernel, options, device, query, tokens):
        return _fall_back(reason)
    log_once(f"attention.kernel=auto: {kernel}.")
    return kernel


def computing_device(mesh: jax.sharding.Mesh | None) -> Device:
    """One of the devices that a program traced now is for: of the mesh (perhaps a topology's), or the default one."""
    if mesh is not None:
        return mesh.devices.flat[0]
    default = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    return jax.devices(default)[0] if default is None or isinstance(default, str) else default


def obstacle(kernel: Kernel, options: LocalOptions, device: Device, query: jax.Array, tokens: int) -> str | None:
    """Why a fused kernel cannot serve, in words; None if it can."""
    head_size = query.shape[-1]
    if options.dropout_rate > 0.0:
        return f"{kernel} has no dropout keyed by position"
    if kernel is Kernel.pallas:
        if _platform(device) != "tpu":
            return f"pallas needs a TPU and the device is a {_platform(device)}"
        if device.device_kind in ("TPU v2", "TPU v3"):  # their compiler refuses the kernel's products
            return f"pallas needs a TPU v4 or later and the device is a {device.device_kind}"
        if query.dtype not in ("bfloat16", "float32"):
            return f"pallas computes in bfloat16 or float32, not {query.dtype}"
        if tokens % (2 * pallas.LANES):  # zigzag works on halves
            return f"pallas needs a multiple of {2 * pallas.LANES} tokens on each device, and there are {tokens}"
        return private.missing(kernel)
    capability = _capability(device)
    if capability is None:
        return f"cudnn needs an NVIDIA GPU and the device is a {_platform(device)}"
    if capability < 8.0:
        return f"cudnn needs compute capability 8.0 (Ampere) and the device has {capability}"
    if query.dtype not in ("bfloat16", "float16"):
        return f"cudnn computes in bfloat16 or float16, not {query.dtype}"
    largest = 256 if 9.0 <= capability < 10.0 else 128  # in the backward pass
    if head_size % 8 or head_size > largest:
        return f"cudnn needs a head size that is a multiple of 8, up to {largest} here, and it is {head_size}"
    if reason := private.missing(kernel):
        return reason
    return None if private.cudnn_is_loaded() else "cuDNN is not installed"


def _platform(device: Device) -> str:
    return "gpu" if device.platform in ("cuda", "rocm") else device.platform


def _capability(device: Device) -> float | None:
    """The compute capability of an NVIDIA GPU; None for any other device."""
    try:
        return float(getattr(device, "compute_capability", ""))
    except ValueError:  # AMD's is a name
        return None


def _fall_back(reason: str) -> Kernel:
    log_once(f"attention.kernel=auto: xla, because {reason}.")
    return Kernel.xla
