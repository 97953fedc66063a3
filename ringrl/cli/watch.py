"""Interruption of an evaluation on a signal."""

from ringrl.errors import Interrupted
from ringrl.training.agreement import FlagSynchronizer
from ringrl.training.interrupt import Interrupt


class InterruptCheck:
    """Callable for each step of acting that raises `Interrupted` after a signal.

    Args:
        interrupt: Handler of the signals.
        together: Whether every process acts; all of them then stop at the same step, synchronizing about once a second.
    """

    def __init__(self, interrupt: Interrupt, together: bool) -> None:
        self._interrupt, self._step = interrupt, 0
        self._synchronizer = FlagSynchronizer(0) if together else None

    def __call__(self) -> None:
        self._step += 1
        stop = self._interrupt.requested
        if self._synchronizer is not None:
            if not self._synchronizer.due(self._step):
                return
            (stop,) = self._synchronizer.synchronize(self._step, stop)
        if stop:
            raise Interrupted
