"""Clusters to plan for: manufacturers' specifications of devices, and the number of devices in a topology.

A specification is that of one JAX device, which is half a chip on some TPUs: peak, memory and links are half the
chip's.
"""

import dataclasses
import difflib
import math
import os
import re
from typing import NamedTuple

from ringrl.errors import RingRLError

GIB = 2**30
MAX_DEVICES = 18_432  # of the largest TPU slices
_GPU_SHARE = 0.95  # the rest is for the driver, its libraries (NCCL, cuBLAS, cuDNN) and fragmentation


@dataclasses.dataclass(frozen=True)
class DeviceKind:
    """Specification of one JAX device; 0 for unknown values."""

    platform: str  # tpu, cuda, cpu
    example: str  # a topology of this kind
    memory: int  # bytes that a program may use
    peak_flops: float  # FLOP/s in bfloat16, dense
    bandwidth: float  # bytes/s sent in one direction over all links to its neighbors, as the paper counts
    source: str
    link_bandwidth: float = 0.0  # bytes/s over one link, one direction: the rate of a hop along one axis of a torus
    network_bandwidth: float = 0.0  # bytes/s to another machine, one direction, over a separate network
    device_memory: int = 0  # bytes, including what programs cannot use
    per_chip: int = 1  # devices
    axes: tuple[int, ...] = (1,)  # allowed numbers of axes in a topology's name


def _gpu(kind: str, device_memory: int, peak: float, nvlink: float, network: float, source: str) -> DeviceKind:
    return DeviceKind(
        "cuda",
        f"{kind}:8",
        int(_GPU_SHARE * device_memory),
        peak,
        nvlink,
        f"{source}; memory: 95 % of what the driver reports, the rest is for driver, NCCL and fragments",
        link_bandwidth=nvlink,  # a switch: all links serve any one neighbor
        network_bandwidth=network,
        device_memory=device_memory,
        axes=(1, 2, 3),
    )


def _tpu(
    example: str,
    usable_gib: float,
    device_gb: int,
    peak: float,
    bandwidth: float,
    link: float,
    source: str,
    per_chip: int = 1,
) -> DeviceKind:
    return DeviceKind(
        "tpu",
        example,
        int(usable_gib * GIB),
        peak,
        bandwidth,
        f"{source}; memory: what libtpu 0.0.52 lets a program have",
        link_bandwidth=link,
        device_memory=device_gb * GIB,
        per_chip=per_chip,
        axes=(example.partition(":")[2].count("x") + 1,),
    )


_PAPER = "Ring Attention paper (arXiv 2310.01889), Table 2"
_HALF = "chip's figures halved, two devices a chip"
_DOCUMENTATION = "Google Cloud TPU documentation (bidirectional interconnect halved)"
DEVICE_KINDS = {
    "a100": _gpu("a100", 85_000_000_000, 312e12, 300e9, 12.5e9, _PAPER),
    "h100": _gpu(
        "h100",
        84_942_979_072,
        989e12,
        450e9,
        50e9,
        "NVIDIA H100 data sheet, SXM, without sparsity (NVLink 900 GB/s both ways); InfiniBand 400 Gb/s a GPU",
    ),
    "h200": _gpu(
        "h200",
        150_120_000_000,
        989e12,
        450e9,
        50e9,
        "NVIDIA H200 data sheet, SXM, without sparsity (NVLink 900 GB/s both ways); InfiniBand 400 Gb/s a GPU",
    ),
    "b200": _gpu(
        "b200",
        191_500_000_000,
        2250e12,
        900e9,
        50e9,
        "NVIDIA HGX B200 data sheet, without sparsity (NVLink 1.8 TB/s both ways); InfiniBand 400 Gb/s a GPU",
    ),
    "v2": _tpu("v2:2x2", 7.48, 8, 23e12, 124e9, 31e9, f"Jouppi et al. 2020, CACM 63(7), {_HALF}", per_chip=2),
    "v3": _tpu("v3:2x2", 15.48, 16, 61.5e12, 56e9, 41e9, f"{_PAPER}, {_HALF}", per_chip=2),
    "v4": _tpu("v4:2x2x2", 30.75, 32, 275e12, 268e9, 50e9, _PAPER),
    "v4-core": _tpu("v4-core:2x2x1", 15.25, 16, 137.5e12, 134e9, 25e9, f"{_PAPER}, {_HALF}", per_chip=2),
    "v5e": _tpu("v5e:4x4", 15.75, 16, 196e12, 186e9, 50e9, _PAPER),
    "v5p": _tpu("v5p:2x2x2", 95.73, 95, 459e12, 600e9, 100e9, _DOCUMENTATION),
    "v6e": _tpu("v6e:4x4", 31.24, 32, 918e12, 400e9, 100e9, _DOCUMENTATION),
    "tpu7x": _tpu("tpu7x:2x2x1", 94.74, 96, 1153.5e12, 300e9, 50e9, f"{_DOCUMENTATION}, {_HALF}", per_chip=2),
    "cpu": DeviceKind("cpu", "cpu:8", 0, 0.0, 0.0, "this machine; memory: all of it, shared evenly"),
}
_NAME = re.compile(r"(?P<kind>[a-z\d]+(?:-core)?):(?P<shape>\d+(?:x\d+){0,2})")


class Topology(NamedTuple):
    """A parsed topology name."""

    kind: str  # of DEVICE_KINDS
    shape: tuple[int, ...]  # chips along each axis of a TPU; slices, machines and GPUs of each

    @property
    def devices(self) -> int:
        """Number of JAX devices."""
        return math.prod(self.shape) * DEVICE_KINDS[self.kind].per_chip

    @property
    def machines(self) -> int:
        """Number of machines joined by a network: 1 for TPUs, whose interconnect spans them."""
        return math.prod(self.shape[:-1]) if DEVICE_KINDS[self.kind].platform == "cuda" else 1


def read_topology(name: str) -> Topology:
    """Parse `v4:8x8x8`, `v4-core:2x2x1`, `a100:4x8` (machines x GPUs), `cpu:8`.

    Raises RingRLError, which names the nearest kinds, for an invalid name.
    """
    found = _NAME.fullmatch(name)
    kind = name.partition(":")[0]
    if kind not in DEVICE_KINDS:
        near = difflib.get_close_matches(kind.lower(), DEVICE_KINDS, n=3, cutoff=0.4) or list(DEVICE_KINDS)
        examples = ", ".join(DEVICE_KINDS[other].example for other in near)
        raise RingRLError(
            f"Unknown topology {name!r}: no kind of device is called {kind!r}; use for example {examples}."
        )
    known = DEVICE_KINDS[kind]
    shape = tuple(int(size) for size in found["shape"].split("x")) if found else ()
    if len(shape) not in known.axes or 0 in shape:
        what = {"tpu": "chips along each axis", "cuda": "machines x GPUs", "cpu": "devices"}[known.platform]
        raise RingRLError(f"Unknown topology {name!r}: after {kind}: come {what}, for example {known.example}.")
    topology = Topology(kind, shape)
    if topology.devices > MAX_DEVICES:
        raise RingRLError(f"{name} has {topology.devices:,} devices: at most {MAX_DEVICES:,} can be planned for.")
    return topology


@dataclasses.dataclass(frozen=True)
class Target:
    """A cluster, and the config section `target`; zeros mean the values of its kind (`fill_specification`)."""

    name: str = ""  # a choice of the group `target`, or the topology
    topology: str = ""  # v4:8x8x8, a100:1x8 (machines x GPUs), cpu:8 (virtual CPU devices of this machine)
    memory: int = 0  # bytes of a device that a program may use
    peak_flops: float = 0.0  # FLOP/s of a device in bfloat16
    bandwidth: float = 0.0  # bytes/s sent by a device, one direction, over all its links
    source: str = ""  # where these figures come from

    @property
    def devices(self) -> int:
        """Number of JAX devices: chips, but two per chip on v2, v3, v4-core and tpu7x; GPUs of all machines."""
        return read_topology(self.topology).devices

    @property
    def kind(self) -> DeviceKind:
        """Specification of its devices."""
        return DEVICE_KINDS[read_topology(self.topology).kind]

    @property
    def hop_bandwidth(self) -> float:
        """Bytes/s of one hop: in a TPU's torus that of one link, else the total of a device."""
        return self.kind.link_bandwidth if self.bandwidth == self.kind.bandwidth else self.bandwidth

    @property
    def platform(self) -> str:
        """Platform of its compiler: tpu, cuda or cpu."""
        return self.kind.platform


_TOPOLOGIES = {
    "a100x8": "a100:1x8",  # one machine of 8 NVIDIA A100, 80 GB each, joined by NVLink: the Ring Attention paper's
    "a100x32": "a100:4x8",  # four of them, joined by InfiniBand at 12.5 GB/s a GPU: the paper's
    "h100x8": "h100:1x8",  # one machine of 8 NVIDIA H100 (SXM), 80 GB each, joined by NVLink
    "h200x1": "h200:1x1",  # one NVIDIA H200 (SXM), 141 GB
    "h200x8": "h200:1x8",  # one machine of 8, joined by NVLink
    "b200x8": "b200:1x8",  # one machine of 8 NVIDIA B200 (HGX), 180 GB each, joined by NVLink
    "tpu_v3_512": "v3:16x16",  # 256 chips: 512 devices of 16 GB, the paper's TPUv3-512
    "tpu_v4_1024": "v4:8x8x8",  # 512 chips, 1,024 cores: 512 devices of 32 GB, taken for the paper's TPUv4-1024
    "tpu_v5e_256": "v5e:16x16",  # a pod: 256 devices of 16 GB, the paper's TPUv5e-256
    "tpu_v5p_512": "v5p:8x8x8",  # 512 devices of 95 GB
    "tpu_v6e_256": "v6e:16x16",  # a pod of Trillium: 256 devices of 32 GB
    "tpu7x_128": "tpu7x:4x4x4",  # 64 chips of Ironwood, two devices each: 128 devices of 96 GB
}
TARGETS = {name: Target(name, topology) for name, topology in _TOPOLOGIES.items()}  # the choices of the group `target`


def fill_specification(target: Target) -> Target:
    """Replace zeros by the values of its kind; between machines, by their network's bandwidth.

    Peak and bandwidth of a CPU stay 0: unknown. Raises RingRLError for a topology that is unknown or missing, and for
    negative values.
    """
    if not target.topology:
        raise RingRLError("target.topology is empty: name one, for example target.topology=v4:8x8x8, or target=a100x8.")
    topology = read_topology(target.topology)
    for key in ("memory", "peak_flops", "bandwidth"):
        value = getattr(target, key)
        if not (math.isfinite(value) and (value == 0 or value >= 1)):
            raise RingRLError(f"target.{key}={value}: use a number of at least 1, or 0 for the kind's own.")
    kind = DEVICE_KINDS[topology.kind]
    return dataclasses.replace(
        target,
        name=target.name or target.topology,
        memory=target.memory or kind.memory or _machine_memory() // topology.devices,
        peak_flops=target.peak_flops or kind.peak_flops,
        bandwidth=target.bandwidth or (kind.network_bandwidth if topology.machines > 1 else kind.bandwidth),
        source=target.source or kind.source,
    )


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
