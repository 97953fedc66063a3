"""What every local kernel is told."""

from typing import NamedTuple

from jaxtyping import Array, Int, UInt32

from ringrl.ops.config import Kernel


class LocalOptions(NamedTuple):
    """What is known when the program is traced."""

    causal: bool
    window: int | None
    dropout_rate: float
    query_block_size: int
    key_block_size: int
    kernel: Kernel = Kernel.xla


class Labels(NamedTuple):
    """Position and segment of each token."""

    positions: Int[Array, "B S"]
    segments: Int[Array, "B S"]


class DropoutKeys(NamedTuple):
    """What names a weight for dropout, beside its two positions; chains and heads are numbered over all devices."""

    seed: UInt32[Array, "2"]
    chains: Int[Array, " B"]
    heads: Int[Array, " H"]
