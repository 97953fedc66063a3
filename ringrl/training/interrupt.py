"""Signals that end training early: Ctrl-C from a user, SIGTERM and SIGUSR1 from a scheduler that preempts the job.

The first signal asks the loop to stop after its step and to save. A scheduler may send several, of both kinds; those
after the first have no effect. A further Ctrl-C stops at once.
"""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

PREEMPTION = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class Interrupt:
    """Context that turns the first signal into `requested`; a Ctrl-C after it raises KeyboardInterrupt as usual.

    `preempted` is set if the first signal came from a scheduler, so that the run should be requeued. The previous
    handlers are restored on exit. Outside the main thread, where Python accepts no handlers, none is installed and
    `requested` stays False.
    """

    def __init__(self) -> None:
        self.requested = False
        self.preempted = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, *PREEMPTION):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._previous:
            number, previous = self._previous.popitem()
            # None: the previous handler was not set from Python and cannot be restored.
            signal.signal(number, previous if previous is not None else signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.preempted = number in PREEMPTION
        self.requested = True
        # A handler may run inside a print: only an unbuffered write is safe here.
        name = signal.Signals(number).name if self.preempted else "Ctrl-C"
        again = "" if self.preempted else " again"
        os.write(2, f"\n{name}: stopping after this step and saving; press Ctrl-C{again} to stop at once.\n".encode())
