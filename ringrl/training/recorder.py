"""Transfer of metrics from the device to the screen, the logs and the history, one step late."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jax

from ringrl.errors import RingRLError
from ringrl.training.config import TrainingConfig
from ringrl.training.device import memory_in_use
from ringrl.training.progress import TrainingProgress
from ringrl.types import Metrics

# Where a step's time goes, besides `other`: waiting for the loader, dispatching the step, and waiting for the device to
# finish the previous step.
PARTS = LOADER, DISPATCH, DEVICE = "loader_wait", "dispatch", "device_wait"


class Logger(Protocol):
    """Protocol of a metrics logger (see `ringrl.training.metrics.TensorBoardLogger`)."""

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Log numbers by tag at a step."""
        ...

    def histograms(self, tree: Any, step: int, prefix: str = ...) -> None:
        """Log the distribution of every array of a tree."""
        ...

    def flush(self) -> None:
        """Write logged data to the disk."""
        ...


class History(Protocol):
    """Protocol of a history of losses and evaluations (see `ringrl.training.run_history.RunHistory`)."""

    def add_loss(self, step: int, loss: float) -> None:
        """Record the loss of a step."""
        ...

    def add_evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Record the scores of an evaluation at a step."""
        ...

    def flush(self) -> None:
        """Write recorded data to the disk."""
        ...


class Recorder:
    """Takes each step's metrics when it is dispatched and reads them when the next one is.

    So the host never waits for the step it has just dispatched. Every `log_every` steps the logger receives, for the
    steps since the last report: rates (`throughput/`), where their time went (`time/`, per step), and the memory in use
    (`memory/`). All exclude the time spent inside `pause`.
    """

    def __init__(
        self,
        training: TrainingConfig,
        progress: TrainingProgress,
        logger: Logger | None,
        history: History | None = None,
        *,
        tokens: int,
        flops: float,
        peak_flops: float | None,
    ) -> None:
        self.losses: list[tuple[int, float]] = []
        self._training, self._progress, self._logger, self._history = training, progress, logger, history
        self._step_tokens, self._step_flops, self._peak_flops = tokens, flops, peak_flops
        self._pending: tuple[int, Metrics] | None = None
        self._began = time.perf_counter()
        self._paused = 0.0
        self._spent: dict[str, float] = dict.fromkeys(PARTS, 0.0)  # seconds since the start
        self._window_began, self._window_step, self._window_spent = 0.0, -1, dict(self._spent)

    def add(self, step: int, metrics: Metrics) -> None:
        """Add the metrics of a dispatched step; reports the previous one."""
        if self._window_step < 0:
            self._window_step = step - 1
        self.flush()
        self._pending = (step, metrics)

    def flush(self) -> None:
        """Report the last step, waiting for it; raises RingRLError beyond `nonfinite_limit`."""
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        with self._timed(DEVICE):
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self.losses.append((step, values["loss"]))
        if self._history is not None:
            self._history.add_loss(step, values["loss"])
        self._report(step, values)
        limit = self._training.nonfinite_limit
        if limit and values["skipped_in_row"] >= limit:
            raise RingRLError(
                f"The loss or a gradient was not finite for {limit} steps in a row, the last at step {step}; lower "
                "training.optimizer.learning_rate or check the data. Checkpoints saved before are whole."
            )

    @property
    def seconds(self) -> float:
        """Seconds since the start, without pauses."""
        return time.perf_counter() - self._began - self._paused

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Context of time that is not training: evaluating, saving."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - began

    def waiting(self) -> contextlib.AbstractContextManager[None]:
        """Context of time spent waiting for the loader."""
        return self._timed(LOADER)

    def dispatching(self) -> contextlib.AbstractContextManager[None]:
        """Context of the host's time in the call of a step, including any wait for the device in it, as on a CPU."""
        return self._timed(DISPATCH)

    @contextlib.contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._spent[part] += time.perf_counter() - began

    def _report(self, step: int, values: dict[str, float]) -> None:
        now = self.seconds
        elapsed, steps = max(now - self._window_began, 1e-9), step - self._window_step
        rate = steps / elapsed
        self._progress.update(step, values["loss"], rate, rate * self._step_tokens)
        every = self._training.log_every
        if not every or (step % every and step != self._training.steps):
            return
        spent = {part: self._spent[part] - self._window_spent[part] for part in PARTS}
        throughput = {
            "steps_per_second": rate,
            "tokens_per_second": rate * self._step_tokens,
            "model_flops_per_second": rate * self._step_flops,
            "loader_wait": spent[LOADER] / elapsed,
        }
        if self._peak_flops:
            throughput["mfu"] = throughput["model_flops_per_second"] / self._peak_flops
        if self._logger is not None:
            seconds = {"step": elapsed, **spent, "other": max(elapsed - sum(spent.values()), 0.0)}
            tagged = {f"train/{name}": value for name, value in values.items()}
            tagged |= {f"throughput/{name}": value for name, value in throughput.items()}
            tagged |= {f"time/{name}": value / steps for name, value in seconds.items()}
            tagged |= {f"memory/{name}": value for name, value in memory_in_use().items()}
            self._logger.scalars(tagged, step)
        self._window_began, self._window_step, self._window_spent = now, step, dict(self._spent)
