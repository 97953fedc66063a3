"""Meshes of absent devices, as targets of their own compilers.

A TPU's compiler comes with `libtpu`, an NVIDIA GPU's with JAX's CUDA plugin (no driver needed); `make aot` installs
both beside the environment. Names: `v4:2x2x2`, `v5e:4x4`, `v3:16x16` (a TPU and its chips along each axis; one JAX
device is a chip, but on v2, v3 and tpu7x half a one), `v4-core:2x2x1` (v4 in halves too), `h100:8`, `a100:4x8`
(machines x GPUs), `cpu:8` (virtual devices of this process). `ringrl.planning.cluster.targets` reads them.
"""

import importlib.util
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies

from ringrl.errors import RingRLError
from ringrl.parallel.mesh import AXES, arrange_devices
from ringrl.planning.cluster.compilers import install_command
from ringrl.planning.cluster.targets import DEVICE_KINDS, Topology, read_topology


class Gpu(NamedTuple):
    """GPU properties that the compiler needs besides memory; from NVIDIA's data sheets, and from a driver's report."""

    description: str
    capability: int
    cores: int
    bandwidth: int  # memory bandwidth, bytes a second
    level2_cache: int
    shared_memory_per_core: int
    shared_memory_per_block: int  # maximum for a kernel
    clock_ghz: float


GPUS = {
    "a100": Gpu("NVIDIA A100-SXM4-80GB", 8, 108, 2_039_000_000_000, 41943040, 167936, 166912, 1.41),
    "h100": Gpu("NVIDIA H100 80GB HBM3", 9, 132, 3_352_320_000_000, 52428800, 233472, 232448, 1.98),
    "h200": Gpu("NVIDIA H200", 9, 132, 4_800_000_000_000, 62914560, 233472, 232448, 1.98),
    "b200": Gpu("NVIDIA B200", 10, 148, 8_000_000_000_000, 132644864, 233472, 232448, 1.965),
}
_DESCRIPTION = """
gpu_device_info {{
  cuda_compute_capability {{ major: {gpu.capability} }}
  core_count: {gpu.cores} fpus_per_core: 128 clock_rate_ghz: {gpu.clock_ghz}
  device_memory_size: {memory} memory_bandwidth: {gpu.bandwidth} l2_cache_size: {gpu.level2_cache}
  shared_memory_per_core: {gpu.shared_memory_per_core} shared_memory_per_block: 49152
  shared_memory_per_block_optin: {gpu.shared_memory_per_block}
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{gpu.description}"
"""


def topology_mesh(name: str, *, data: int = 1, fsdp: int = 1, ring: int = -1, head: int = 1) -> jax.sharding.Mesh:
    """A mesh of axes data, fsdp, ring, head over a named topology's devices; ring=-1 takes the remaining ones.

    Raises RingRLError as `topology_devices` does, and for sizes that do not match the number of devices.
    """
    devices = topology_devices(name)
    others = data * fsdp * head
    ring = len(devices) // others if ring == -1 else ring
    sizes = (data, fsdp, ring, head)
    if math.prod(sizes) != len(devices):
        wanted = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
        raise RingRLError(f"{name} has {len(devices)} devices, and {wanted} makes {math.prod(sizes)}.")
    if "-core:" in name:  # JAX does not order the halves of chips
        kinds = (jax.sharding.AxisType.Auto,) * len(AXES)
        return jax.sharding.Mesh(np.asarray(devices).reshape(sizes), AXES, axis_types=kinds)
    return arrange_devices(sizes, devices)


def topology_devices(name: str) -> Sequence[Any]:
    """The devices of a named topology: CPU devices are usable, others can only be compiled for.

    Raises RingRLError for an unknown name, for a compiler that is not installed, and for too few CPU devices.
    """
    topology = read_topology(name)
    try:
        match DEVICE_KINDS[topology.kind].platform:
            case "cuda":
                return _gpus(topology)
            case "tpu":
                return _tpus(topology)
    except jax.errors.JaxRuntimeError as error:
        raise RingRLError(f"Unknown topology {name!r}: {str(error).splitlines()[0]}") from error
    return _cpus(topology.devices)


def _cpus(count: int) -> Sequence[Any]:
    here = jax.devices("cpu")
    if len(here) < count:
        raise RingRLError(
            f"cpu:{count} needs {count} virtual CPU devices and there are {len(here)}: set JAX_NUM_CPU_DEVICES={count}."
        )
    return here[:count]


def _gpus(topology: Topology) -> Sequence[Any]:
    if not any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
        raise RingRLError(f"No compiler for NVIDIA GPUs: {install_command('cuda')}")
    shape = (1, 1, *topology.shape)[-3:]  # slices x machines x GPUs
    memory = DEVICE_KINDS[topology.kind].device_memory
    description = _DESCRIPTION.format(gpu=GPUS[topology.kind], memory=memory)
    sizes = "x".join(map(str, shape))
    return topologies.get_topology_desc("", "cuda", topology=sizes, target_config=description).devices


def _tpus(topology: Topology) -> Sequence[Any]:
    if importlib.util.find_spec("libtpu") is None:
        raise RingRLError(f"No compiler for TPUs: {install_command('tpu')}")
    # JAX presents a v4 as one device per chip; later kinds are by default.
    options = {"chip_config_name": "megacore"} if topology.kind == "v4" else {}
    name = f"{topology.kind.removesuffix('-core')}:{'x'.join(map(str, topology.shape))}"
    return topologies.get_topology_desc(name, "tpu", **options).devices
