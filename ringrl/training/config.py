"""Configuration of the trainer."""

import dataclasses
import enum

from ringrl.errors import RingRLError, check_least, parse_choice


class Precision(enum.StrEnum):
    """The dtype of the computation; parameters and optimizer stay in float32."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Schedule(enum.StrEnum):
    """The learning rate after warm-up."""

    cosine = "cosine"
    constant = "constant"


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up, a schedule and clipping by global norm."""

    learning_rate: float = 1e-3  # peak, after warm-up
    warmup_steps: int = 50  # steps over which the learning rate rises from 0
    schedule: Schedule = Schedule.cosine
    final_fraction: float = 0.0  # of the learning rate, at the last step
    beta1: float = 0.9  # decay of Adam's mean of gradients
    beta2: float = 0.98  # decay of Adam's mean of squared gradients
    epsilon: float = 1e-8  # added to the root in Adam's denominator
    weight_decay: float = 1e-4  # of matrices alone, times the learning rate
    clip_norm: float = 1.0  # largest norm of all gradients together; 0 turns clipping off

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", parse_choice("training.optimizer.schedule", self.schedule, Schedule))
        least = dict.fromkeys(("learning_rate", "warmup_steps", "final_fraction", "weight_decay", "clip_norm"), 0)
        check_least("training.optimizer", self, least)
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise RingRLError(f"training.optimizer.{name}={getattr(self, name)} is not in [0, 1).")
        if not self.epsilon > 0.0:
            raise RingRLError(f"training.optimizer.epsilon={self.epsilon} must be positive.")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Length, batch, precision, and how often to log, evaluate and save (all in optimizer steps; 0 is never)."""

    steps: int = 1000  # optimizer steps of the whole run
    batch_size: int = 32  # chains in an optimizer step
    gradient_accumulation: int = 1  # microbatches that the batch is split into
    precision: Precision = Precision.float32
    gradient_precision: Precision = Precision.float32  # of gradients as devices add them up and keep them
    log_every: int = 10  # steps between lines of the log and points in TensorBoard
    histogram_every: int = 0  # steps between histograms in TensorBoard; 0 is never
    evaluate_every: int = 0  # steps between evaluations; the end of training always evaluates
    save_every: int = 500  # steps between checkpoints; the end of training always saves
    save_every_minutes: float = 0.0  # minutes after the previous save, whatever triggered it; 0 is never
    keep_last: int = 2  # checkpoints kept besides the best one
    nonfinite_limit: int = 10  # skipped steps in a row before training stops; 0 never stops
    loader_threads: int = 1  # threads that build batches; 0 builds them between steps
    prefetch: int = 4  # batches built ahead
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        for name in ("precision", "gradient_precision"):
            object.__setattr__(self, name, parse_choice(f"training.{name}", getattr(self, name), Precision))
        check_least("training", self, dict.fromkeys(("steps", "batch_size", "gradient_accumulation"), 1))
        never = ("log_every", "histogram_every", "evaluate_every", "save_every", "nonfinite_limit")
        check_least("training", self, dict.fromkeys((*never, "keep_last", "loader_threads", "prefetch"), 0))
        if not self.save_every_minutes >= 0:
            raise RingRLError("training.save_every_minutes must be 0 (never) or more.")
        if self.batch_size % self.gradient_accumulation:
            raise RingRLError(
                f"training.batch_size={self.batch_size} is not divisible by "
                f"training.gradient_accumulation={self.gradient_accumulation}."
            )
