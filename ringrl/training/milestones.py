"""What happens at some steps only: evaluating, and keeping what was reached."""

from collections.abc import Callable, Mapping
from typing import Any

from ringrl.training.checkpoint import Checkpointer
from ringrl.training.recorder import Logger
from ringrl.training.state import TrainState
from ringrl.types import Parameters

Evaluate = Callable[[Parameters, int], Mapping[str, float]]


class Milestones:
    """Evaluations and checkpoints of one run; remembers the last evaluation and the best score."""

    def __init__(
        self,
        checkpointer: Checkpointer | None,
        evaluate: Evaluate | None,
        logger: Logger | None,
        metadata: Mapping[str, Any],
    ) -> None:
        self.evaluation: dict[str, float] | None = None
        self._checkpointer, self._evaluate, self._logger, self._metadata = checkpointer, evaluate, logger, metadata
        self._evaluated_step = self._saved_step = -1
        best = checkpointer.best() if checkpointer is not None else None
        self._best_score = best[1] if best is not None else float("-inf")

    def evaluate(self, state: TrainState, step: int) -> bool:
        """Evaluate the parameters once at a step; whether their "score" is the best so far."""
        if self._evaluate is None or self._evaluated_step == step:
            return False
        self.evaluation = {name: float(value) for name, value in self._evaluate(state.params, step).items()}
        self._evaluated_step = step
        if self._logger is not None:
            self._logger.scalars({f"evaluation/{name}": value for name, value in self.evaluation.items()}, step)
        score = self.evaluation.get("score")
        if score is None or not score > self._best_score:
            return False
        self._best_score = score
        return True

    def save(self, state: TrainState, step: int, *, tokens: int, seconds: float) -> None:
        """Write the checkpoint of a step, once."""
        if self._checkpointer is None or self._saved_step == step:
            return
        evaluation = self.evaluation if self._evaluated_step == step else None
        record = {
            **self._metadata,
            "data_position": step,
            "tokens": tokens,
            "seconds": seconds,
            "evaluation": evaluation,
        }
        self._checkpointer.save(step, state, record, metric=(evaluation or {}).get("score"))
        self._saved_step = step
