"""Configuration of `ringrl report` and `ringrl bench`."""

import dataclasses
import enum

from ringrl.config.checks import check_name
from ringrl.errors import RingRLError
from ringrl.evaluation.config import check_redraws
from ringrl.training.config import Precision


@dataclasses.dataclass(frozen=True)
class ReportCommand:
    """`ringrl report`: a table and a figure of runs."""

    runs: list[str] = dataclasses.field(default_factory=list)  # run folders, or folders of runs; empty: those of name
    name: str = "run"  # with runs empty: under runs/train/<name>, the latest of each agent, seed and label
    normalized: bool = True  # if all runs of an environment have the same references
    bootstrap_samples: int = 2000  # resamples behind a 95 % interval; 0 leaves intervals out
    debug: bool = False  # tracebacks instead of one-line errors

    def __post_init__(self) -> None:
        check_name(self.name)
        check_redraws("bootstrap_samples", self.bootstrap_samples)


class Benchmark(enum.StrEnum):
    """The subject of a benchmark."""

    attention = "attention"


@dataclasses.dataclass(frozen=True)
class BenchCommand:
    """`ringrl bench attention`: forward and backward of one causal chain, at every size, compared with others."""

    benchmark: Benchmark = Benchmark.attention
    name: str = "attention"  # part of the run folder
    devices: list[int] = dataclasses.field(default_factory=lambda: [4, 8])  # in the ring; virtual ones on a CPU
    # Lengths of the chain that are measured
    tokens: list[int] = dataclasses.field(default_factory=lambda: [2048, 4096, 8192, 16384, 32768])
    # Precisions that are measured
    dtypes: list[Precision] = dataclasses.field(default_factory=lambda: [Precision.float32])
    heads: int = 4  # attention heads
    head_size: int = 64  # size of a head's queries and keys
    block_size: int = 512  # tokens of a block of queries and of keys, in all candidates
    repeats: int = 5  # interleaved repetitions, of which the median counts; 0 only compiles, for the memory
    published: bool = True  # include the published ringattention 0.1.2
    one_device: bool = True  # include blockwise, and JAX's own attention, on one device
    dense_up_to: int = 8192  # largest number of tokens for JAX's own attention, whose memory is quadratic
    debug: bool = False  # tracebacks instead of one-line errors

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.devices or not self.tokens or not self.dtypes:
            raise RingRLError("bench: devices, tokens and dtypes each need a value, such as devices=[4].")
        least = {"devices": min(self.devices), "tokens": min(self.tokens), "heads": self.heads}
        least |= {"head_size": self.head_size, "block_size": self.block_size}
        for key, value in least.items():
            if value < 1:
                raise RingRLError(f"bench: {key}={value}: use at least 1.")
        if self.repeats < 0:
            raise RingRLError(f"bench: repeats={self.repeats}: use 0 (memory alone) or more.")
        for devices in self.devices:
            for tokens in self.tokens:
                block = min(self.block_size, tokens // devices)
                if block < 1 or tokens % (2 * devices) or (tokens // devices) % block:
                    raise RingRLError(
                        f"bench: tokens={tokens} on {devices} devices do not divide into blocks of "
                        f"{self.block_size} and zigzag's {2 * devices} stretches: use powers of two."
                    )
