"""Configuration of attention: the strategy, the layout, the local kernel and the block sizes."""

import dataclasses
import enum

from ringrl.errors import RingRLError, parse_choice


class Strategy(enum.StrEnum):
    """How attention over the whole sequence is computed."""

    auto = "auto"  # dense where that is small and faster, else blockwise; on a mesh's ring and head, as they ask
    dense = "dense"  # every score at once; the reference
    blockwise = "blockwise"  # one device, online softmax over blocks, memory linear in the sequence
    ring = "ring"  # tokens on all devices, keys and values go round
    ulysses = "ulysses"  # tokens on all devices, exchanged for heads
    hybrid = "hybrid"  # heads exchanged along the mesh's head axis, a ring along its ring axis

    @property
    def is_sharded(self) -> bool:
        """Whether tokens of one chain lie on several devices, so that a mesh is needed."""
        return self in (Strategy.ring, Strategy.ulysses, Strategy.hybrid)


class Layout(enum.StrEnum):
    """How steps are dealt to devices."""

    contiguous = "contiguous"  # the i-th stretch
    striped = "striped"  # every n-th step
    zigzag = "zigzag"  # the i-th stretch from the front and from the back


class Kernel(enum.StrEnum):
    """The implementation that computes a local block."""

    auto = "auto"  # the fastest that serves the device and the arrays
    xla = "xla"  # everywhere, every feature
    cudnn = "cudnn"  # NVIDIA: cuDNN's fused attention
    pallas = "pallas"  # TPU: JAX's splash attention


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    """Strategy, layout, kernel and block sizes (tokens); enums or their lower-case strings (docs/attention.md)."""

    strategy: Strategy = Strategy.auto
    layout: Layout = Layout.contiguous
    kernel: Kernel = Kernel.auto
    query_block_size: int = 512  # queries whose scores are held at once
    key_block_size: int = 512  # keys whose scores are held at once

    def __post_init__(self) -> None:
        for name, choices in (("strategy", Strategy), ("layout", Layout), ("kernel", Kernel)):
            object.__setattr__(self, name, parse_choice(f"attention.{name}", getattr(self, name), choices))
        if self.query_block_size < 1 or self.key_block_size < 1:
            raise RingRLError("attention.query_block_size and attention.key_block_size must be at least 1.")
        if self.strategy is Strategy.dense and self.kernel in (Kernel.cudnn, Kernel.pallas):
            raise RingRLError(
                f"attention.kernel={self.kernel}: attention.strategy=dense computes every score without a kernel: "
                "use attention.strategy=blockwise, or attention.kernel=xla."
            )
