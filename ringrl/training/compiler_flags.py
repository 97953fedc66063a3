"""Compiler flags by which the scheduler overlaps a ring's transfers with the block loop.

Found by reading the schedules that the compilers emit (`ringrl.planning.hlo.overlap`), libtpu 0.0.52 and XLA's GPU
compiler of JAX 0.10.2: TPU v4 and v5e need none.
"""

import os
from collections.abc import Mapping

import jax

Flags = dict[str, bool | int]

_OLD_TPU: Flags = {"xla_enable_async_collective_permute": True}  # otherwise a transfer is one synchronous instruction
_NVIDIA: Flags = {
    # Otherwise one transfer at a time is in flight, and gradients wait for keys and values.
    "xla_gpu_experimental_parallel_collective_overlap_limit": 4,
    "xla_gpu_enable_latency_hiding_scheduler": True,
    # All arrays of a hop in one transfer: positions and segments alone, small as they are, start after the computation.
    "xla_gpu_collective_permute_combine_threshold_bytes": 2**40,
    # The scheduler may fill 94 % of the memory, not 76 %: near its limit it serializes transfers.
    "xla_gpu_memory_limit_slop_factor": 118,
}
_FLAGS = (("TPU v2", _OLD_TPU), ("TPU v3", _OLD_TPU), ("NVIDIA", _NVIDIA), ("Tesla", _NVIDIA))


def compiler_flags(mesh: jax.sharding.Mesh | None, environment: Mapping[str, str] = os.environ) -> Flags:
    """Compiler options, as `jax.jit` takes them, for a program over several devices; none for one device.

    Flags that the user has set in XLA_FLAGS or LIBTPU_INIT_ARGS are omitted, so that the user's values hold.
    """
    if mesh is None or mesh.size == 1:
        return {}
    kind = mesh.devices.flat[0].device_kind
    wanted = next((flags for name, flags in _FLAGS if kind.startswith(name)), {})
    words = f"{environment.get('XLA_FLAGS', '')} {environment.get('LIBTPU_INIT_ARGS', '')}".split()
    said = {word.lstrip("-").partition("=")[0] for word in words}
    return {name: value for name, value in wanted.items() if name not in said}


def describe_flags(mesh: jax.sharding.Mesh, flags: Flags) -> str:
    """Format flags as one line for the run's log."""
    words = " ".join(f"{name}={value}" for name, value in flags.items())
    return f"compiler flags for {mesh.size} x {mesh.devices.flat[0].device_kind}: {words}"
