"""Ctrl-C during training: the first asks the loop to stop after its step, the second stops at once."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """While entered, turns the first SIGINT into `requested`; a second raises KeyboardInterrupt as usual.

    The handler that was there before is restored on leaving. Outside the main thread, where Python takes no
    handlers, nothing is installed and `requested` stays False.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None
        self._installed = False

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._installed:
            # None: the previous handler was not set from Python and cannot be named.
            signal.signal(signal.SIGINT, self._previous if self._previous is not None else signal.SIG_DFL)
            self._installed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        # A handler may run inside a print: only an unbuffered write is safe here.
        os.write(2, b"\nStopping after this step and saving; press Ctrl-C again to stop at once.\n")
