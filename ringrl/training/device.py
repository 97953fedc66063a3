"""Facts about a device: name, peak FLOP/s, memory, and whether a compiled step fits."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import psutil

from ringrl.errors import RingRLError

GIB = 2**30

# Dense bfloat16 FLOP/s of one JAX device (float16 on V100, which has no bfloat16), without sparsity; None: unknown.
# Sources: NVIDIA's data sheets (Ada's white paper for the RTX 4090; half of the figure with sparsity, where that alone
# is given); Google Cloud's TPU system architecture pages. The first name found in the device kind as separate words is
# used. A JAX device is one core of a TPU v3 or TPU7x (half a chip), a whole chip from v4 to v6e.
_PEAK_FLOPS = (
    ("GB200", 2500e12),
    ("B200", 2250e12),
    ("GH200", 989.4e12),
    ("H200 NVL", 835.5e12),
    ("H200", 989.4e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835.5e12),
    ("H100", 989.4e12),
    ("A100", 312e12),
    ("A10", 125e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("V100", 125e12),
    ("RTX 4090 D", None),
    ("RTX 4090 Laptop", None),
    ("RTX 4090", 165.2e12),
    ("TPU v3", 61.5e12),
    ("TPU v4", 275e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5p", 459e12),
    ("TPU v5", 459e12),
    ("TPU v6", 918e12),
    ("TPU v6e", 918e12),
    ("TPU7x", 1153.5e12),
)


def device_name(device: Any = None) -> str:
    """A short name, for example "NVIDIA H200" or "cpu"; of the first device by default."""
    return (device or jax.devices()[0]).device_kind


def peak_flops(device_kind: str) -> float | None:
    """Peak dense bfloat16 FLOP/s of one device of that kind, or None if unknown (every CPU)."""
    found = (peak for name, peak in _PEAK_FLOPS if re.search(rf"\b{name}\b", device_kind, re.IGNORECASE))
    return next(found, None)


def total_peak_flops(devices: Iterable[Any]) -> float | None:
    """Peak dense bfloat16 FLOP/s of devices of one kind together, or None if unknown."""
    peaks = [peak_flops(device.device_kind) for device in devices]
    return None if peaks[0] is None else peaks[0] * len(peaks)


def memory_in_use(devices: Sequence[Any] | None = None) -> dict[str, float]:
    """Bytes in use: `bytes_in_use` and `peak_bytes` of the fullest device, if reported, and `host_resident`.

    `devices` are this process's own by default. The peak is since the start of the process; `host_resident` is the
    process's share of host memory, the only available number on a CPU.
    """
    statistics = [device.memory_stats() or {} for device in (jax.local_devices() if devices is None else devices)]
    memory = {"host_resident": float(psutil.Process().memory_info().rss)}
    for ours, theirs in (("bytes_in_use", "bytes_in_use"), ("peak_bytes", "peak_bytes_in_use")):
        values = [float(found[theirs]) for found in statistics if theirs in found]
        if values:
            memory[ours] = max(values)
    return memory


def needed_bytes(compiled: Any) -> int:
    """Bytes a device needs to run a compiled function: arguments, temporaries and outputs, aliases counted once."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    sizes = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    return int(sizes - memory.alias_size_in_bytes)


def available_bytes(device: Any, resident: int = 0) -> int | None:
    """Bytes that a computation may use on a device, or None if unknown.

    On an accelerator it is the limit of the allocator; on a CPU the free memory of the machine or of its container,
    plus the `resident` bytes of arguments that are already in memory.
    """
    if device.platform != "cpu":
        limit = (device.memory_stats() or {}).get("bytes_limit")
        return None if limit is None else int(limit)
    free = psutil.virtual_memory().available
    container = _container_free_bytes()
    return (free if container is None else min(free, container)) + resident


def check_memory(compiled: Any, device: Any, *, steps: int, available: int | None = None) -> None:
    """Raise RingRLError if a compiled step needs more memory than its device has; nothing runs.

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


def check_state_memory(needed: int, device: Any, *, available: int | None = None) -> None:
    """Raise RingRLError if a device's shard of a training state, in bytes, does not fit; nothing is allocated."""
    available = available_bytes(device) if available is None else available
    if available is not None and needed > available:
        raise RingRLError(
            f"Model larger than memory allows: its parameters and optimizer state need {needed / GIB:.2f} GiB and "
            f"{device_name(device)} has {available / GIB:.2f} GiB; choose a smaller model, or spread it over more "
            "devices (mesh.fsdp or mesh.ring)."
        )


def _container_free_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Free bytes under a container's own limit (Linux control groups, either version), or None without a limit."""
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
        # The kernel reclaims cached file pages on demand, so they count as free.
        return limit - used + int(statistics.get(cache_name, 0))
    return None
