"""What the trainer knows of a device: its name, its peak, its memory, and whether a compiled step fits."""

from pathlib import Path
from typing import Any

import jax
import psutil

from ringrl.errors import RingRLError

GIB = 2**30

# Dense bfloat16 FLOP/s of one JAX device (float16 on V100, which has no bfloat16), without sparsity. Sources: NVIDIA's
# data sheets of V100, A100, H100 and H200; Google Cloud's TPU system architecture pages. The first name found in
# the device kind wins. A JAX device is one core of a TPU v3 (half a chip), a whole chip from v4 on.
_PEAK_FLOPS = (
    ("H200", 989.4e12),
    ("H100 PCIe", 756e12),
    ("H100", 989.4e12),
    ("A100", 312e12),
    ("V100", 125e12),
    ("TPU v3", 61.5e12),
    ("TPU v4", 275e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),
    ("TPU v6", 918e12),
)


def device_name(device: Any = None) -> str:
    """A short name, for example "NVIDIA H200" or "cpu"; the first device by default."""
    return (device or jax.devices()[0]).device_kind


def peak_flops(device_kind: str) -> float | None:
    """Peak dense bfloat16 FLOP/s of one device of that kind, or None where unknown (every CPU)."""
    return next((peak for name, peak in _PEAK_FLOPS if name.lower() in device_kind.lower()), None)


def needed_bytes(compiled: Any) -> int:
    """Bytes a device needs to run a compiled function: arguments, temporaries and outputs, aliases counted once."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    sizes = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    return int(sizes - memory.alias_size_in_bytes)


def available_bytes(device: Any, resident: int = 0) -> int | None:
    """Bytes that a computation may use on a device, or None where unknown.

    On an accelerator the limit of its allocator; on a CPU the free memory of the machine or of its container, plus
    the `resident` bytes of arguments that are there already.
    """
    if device.platform != "cpu":
        limit = (device.memory_stats() or {}).get("bytes_limit")
        return None if limit is None else int(limit)
    free = psutil.virtual_memory().available
    container = _container_free_bytes()
    return (free if container is None else min(free, container)) + resident


def check_memory(compiled: Any, device: Any, *, steps: int, available: int | None = None) -> None:
    """Raise RingRLError where a compiled step needs more memory than its device has; nothing runs.

    `steps` (P, of one chain) is for the message; `available` overrides the device's own number of bytes.
    """
    memory = compiled.memory_analysis()
    needed = needed_bytes(compiled)
    if available is None:
        available = available_bytes(device, resident=int(memory.argument_size_in_bytes) if memory else 0)
    if available is not None and needed > available:
        raise RingRLError(
            f"Chain longer than memory allows: a training step on chains of {steps} steps needs "
            f"{needed / GIB:.2f} GiB and {device_name(device)} has {available / GIB:.2f} GiB; lower "
            "chain.trajectories or training.batch_size, raise training.gradient_accumulation, or set "
            "attention.strategy=blockwise or model.remat=layer."
        )


def check_state_memory(shapes: Any, device: Any, *, available: int | None = None) -> None:
    """Raise RingRLError where a training state of these shapes does not fit on a device; nothing is allocated."""
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    available = available_bytes(device) if available is None else available
    if available is not None and needed > available:
        raise RingRLError(
            f"Model larger than memory allows: its parameters and optimiser state need {needed / GIB:.2f} GiB and "
            f"{device_name(device)} has {available / GIB:.2f} GiB; choose a smaller model, or lower model.layers or "
            "model.width."
        )


def _container_free_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Free bytes under a container's own limit (Linux control groups, either version), or None where there is none."""
    for folder, limit_name, used_name, cache_name in (
        (root, "memory.max", "memory.current", "inactive_file"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit = int((folder / limit_name).read_text())  # "max" where unlimited
            used = int((folder / used_name).read_text())
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        # The kernel gives cached file pages back on demand, so they count as free.
        return limit - used + int(statistics.get(cache_name, 0))
    return None
