"""Result of training."""

import dataclasses

from ringrl.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """Result of `train`: the last state, totals over the whole run, and this call's losses by step."""

    state: TrainState
    steps: int
    tokens: int
    seconds: float  # of training, without compilation, evaluation and saving
    final_loss: float | None  # None if this call had no step to run
    losses: list[tuple[int, float]]
    evaluation: dict[str, float] | None  # the last of this call
    interrupted: bool  # ended early by a signal, after saving a checkpoint of the last step
    preempted: bool  # the signal was a scheduler's (SIGTERM, SIGUSR1): requeue the run
