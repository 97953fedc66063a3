"""Preemption while a command has nothing to save: it exits immediately, with the exit code that requeues it.

Before its first step a run may spend minutes in one call (reading, compiling), during which Python handles no signal;
so a separate thread waits for signals. While there is something to save, `ringrl.training.interrupt` handles them.
"""

import contextlib
import os
import signal
import sys
import threading
from types import FrameType, TracebackType

from ringrl.training.interrupt import PREEMPTION

REQUEUE = 75  # EX_TEMPFAIL: try again


class ExitOnPreemption:
    """Context in which SIGTERM, SIGUSR1 and SIGUSR2 end the process immediately with exit code 75.

    Existing handlers are kept, and handlers set within the context take precedence. Outside the main thread, where
    Python accepts no handlers, none is installed.
    """

    def __init__(self) -> None:
        self._installed: list[signal.Signals] = []
        self._pipe: tuple[int, int] | None = None
        self._wakeup = -1

    def __enter__(self) -> "ExitOnPreemption":
        if threading.current_thread() is not threading.main_thread():
            return self
        self._pipe = os.pipe()
        for descriptor in self._pipe:
            os.set_blocking(descriptor, descriptor == self._pipe[0])
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for number in PREEMPTION:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._handle)
                self._installed.append(number)
        threading.Thread(target=self._listen, args=(self._pipe[0],), name="preemption", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pipe is None:
            return
        for number in self._installed:
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._pipe[1])  # ends the thread

    def _listen(self, descriptor: int) -> None:
        """Wait for signal numbers, which the kernel's handler writes even while the main thread is in a long call."""
        with contextlib.suppress(OSError):
            while numbers := os.read(descriptor, 64):
                for number in numbers:
                    if number in self._installed and signal.getsignal(number) == self._handle:
                        _leave(number)
            os.close(descriptor)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        _leave(number)


def _leave(number: int) -> None:
    with contextlib.suppress(Exception):  # the signal may have interrupted a print
        sys.stdout.flush()
    line = (
        f"\nringrl: preempted: {signal.Signals(number).name} while there was nothing to save. "
        f"Exit code {REQUEUE} asks to be queued again.\n"
    )
    with contextlib.suppress(OSError):
        os.write(2, line.encode())
    os._exit(REQUEUE)
