"""What the trainer is told."""

import dataclasses
import enum

from ringrl.errors import RingRLError, choice


class Precision(enum.StrEnum):
    """The dtype of the computation; parameters and optimiser stay in float32."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Schedule(enum.StrEnum):
    """The learning rate after warm-up."""

    cosine = "cosine"
    constant = "constant"


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up, a schedule and clipping by global norm."""

    learning_rate: float = 1e-3
    warmup_steps: int = 50
    schedule: Schedule = Schedule.cosine
    final_fraction: float = 0.0  # of the learning rate, at the last step
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-8
    weight_decay: float = 1e-4
    clip_norm: float = 1.0  # 0 turns clipping off


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Length, batch, precision, and how often to log, evaluate and save (all in optimiser steps; 0 is never)."""

    steps: int = 1000
    batch_size: int = 32  # chains in an optimiser step
    gradient_accumulation: int = 1  # pieces the batch is split into
    precision: Precision = Precision.float32
    gradient_precision: Precision = Precision.float32  # of gradients as devices add them up and keep them
    log_every: int = 10
    histogram_every: int = 0
    evaluate_every: int = 0  # the end of training always evaluates
    save_every: int = 500  # the end of training always saves
    save_every_minutes: float = 0.0  # since the last save, whatever the reason of that; 0 is never
    keep_last: int = 2  # checkpoints kept besides the best
    nonfinite_limit: int = 10  # skipped steps in a row before training stops; 0 never stops
    loader_threads: int = 1
    prefetch: int = 4
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        for name in ("precision", "gradient_precision"):
            object.__setattr__(self, name, choice(f"training.{name}", getattr(self, name), Precision))
        if self.steps < 1 or self.batch_size < 1 or self.gradient_accumulation < 1:
            raise RingRLError("training.steps, batch_size and gradient_accumulation must be at least 1.")
        if not self.save_every_minutes >= 0:
            raise RingRLError("training.save_every_minutes must be 0 (never) or more.")
        if self.batch_size % self.gradient_accumulation:
            raise RingRLError(
                f"training.batch_size={self.batch_size} is not divisible by "
                f"training.gradient_accumulation={self.gradient_accumulation}."
            )
