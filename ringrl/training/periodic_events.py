"""Periodic events of training: evaluation and checkpoints."""

import logging
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from ringrl.errors import Interrupted, RingRLError
from ringrl.parallel.multiprocess import is_main_process, wait_for_process_0
from ringrl.training.agreement import agree_any, agree_each
from ringrl.training.checkpoint import Checkpointer
from ringrl.training.recorder import History, Logger
from ringrl.training.state import TrainState
from ringrl.types import Parameters

Evaluate = Callable[[Parameters, int], Mapping[str, float]]


_logger = logging.getLogger(__name__)


class PeriodicEvents:
    """Evaluations and checkpoints of one run; tracks the last evaluation and the best score.

    Leaving the context finishes the save in progress. Its error is raised, or only logged if another error is
    propagating.
    """

    def __init__(
        self,
        checkpointer: Checkpointer | None,
        evaluate: Evaluate | None,
        records: tuple[Logger | None, History | None],
        metadata: Mapping[str, Any],
        save_every_minutes: float = 0.0,
    ) -> None:
        self.evaluation: dict[str, float] | None = None
        self._checkpointer, self._evaluate, self._metadata = checkpointer, evaluate, metadata
        self._logger, self._history = records
        self._evaluated_step = self._saved_step = -1
        self._save_every_seconds, self._saved_at = 60 * save_every_minutes, time.monotonic()
        best = checkpointer.best() if checkpointer is not None else None
        self._best_score = best[1] if best is not None else float("-inf")

    def __enter__(self) -> "PeriodicEvents":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._checkpointer is None:
            return
        try:
            self._checkpointer.wait()
        except Exception as fault:
            if error is None:
                raise
            _logger.warning("%s", fault)
        if error is None:
            wait_for_process_0("checkpoint")  # process 0 completes it, and would be ended if others exited

    def save_due_by_clock(self) -> bool:
        """Whether `save_every_minutes` have passed since the last save, or the start; False except in process 0."""
        waited = time.monotonic() - self._saved_at
        return self._save_every_seconds > 0 and waited >= self._save_every_seconds and is_main_process()

    def evaluate(self, state: TrainState, step: int) -> bool:
        """Evaluate the parameters once at a step; returns whether their "score" is the best so far.

        Raises the evaluation's error, and RingRLError if it fails in another process. If it was interrupted in any
        process, Interrupted is raised in all of them.
        """
        if self._evaluate is None or self._evaluated_step == step:
            return False
        found, fault = None, None
        try:
            found = {name: float(value) for name, value in self._evaluate(state.params, step).items()}
        except Exception as error:
            fault = error
        left = isinstance(fault, Interrupted)
        failed, left = agree_each(fault is not None and not left, left)
        if fault is not None and not isinstance(fault, Interrupted):
            raise fault
        if left and not failed:
            raise Interrupted
        if failed or found is None:
            raise RingRLError(f"The evaluation at step {step} failed in another process; it says why.")
        self.evaluation, self._evaluated_step = found, step
        score = found.get("score", float("-inf"))
        is_best = agree_any(score > self._best_score)
        if is_best:
            self._best_score = score
        if self._logger is not None:  # after all collectives, so that a full disk cannot make one process skip them
            self._logger.scalars({f"evaluation/{name}": value for name, value in found.items()}, step)
        if self._history is not None and found:
            self._history.add_evaluation(step, found)
        return is_best

    def save(self, state: TrainState, step: int, *, tokens: int, seconds: float) -> None:
        """Begin writing the checkpoint of a step, once."""
        if self._checkpointer is None or self._saved_step == step:
            return
        self._flush()
        evaluation = self.evaluation if self._evaluated_step == step else None
        record = {
            **self._metadata,
            "data_position": step,
            "tokens": tokens,
            "seconds": seconds,
            "evaluation": evaluation,
        }
        self._checkpointer.save(step, state, record, metric=(evaluation or {}).get("score"))
        self._saved_step, self._saved_at = step, time.monotonic()

    def wait(self) -> None:
        """Wait until the checkpoint in progress is complete, in every process."""
        self._flush()
        if self._checkpointer is not None:
            self._checkpointer.wait()
            wait_for_process_0("last checkpoint")

    def add_evaluation(self, step: int) -> None:
        """Add the evaluation of a step to its complete checkpoint."""
        if self._checkpointer is None or self.evaluation is None or self._evaluated_step != step:
            return
        self._flush()
        record = {**self._metadata, "evaluation": self.evaluation}
        self._checkpointer.amend(step, record, metric=self.evaluation.get("score"))

    def _flush(self) -> None:
        """Flush logs to the disk, so that they precede the checkpoint of the same step."""
        for record in (self._logger, self._history):
            if record is not None:
                record.flush()
