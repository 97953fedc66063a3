"""A scheduler's signal while a command has nothing to save: it ends at once, with the exit code that queues it again.

Before its first step a run may spend minutes in one call (reading, compiling), in which Python hears no signal; so a
thread of its own listens. While there is something to save, `ringrl.training.interrupt` takes the signals over.
"""

import contextlib
import os
import signal
import sys
import threading
from types import FrameType, TracebackType

from ringrl.training.interrupt import PREEMPTION

REQUEUE = 75  # EX_TEMPFAIL: try again


class EndsWhenPreempted:
    """While entered, SIGTERM, SIGUSR1 and SIGUSR2 end the process at once with exit code 75.

    A signal that has a handler already keeps it, and one that is given another meanwhile is left to that. Outside the
    main thread, where Python takes no handlers, nothing is installed.
    """

    def __init__(self) -> None:
        self._installed: list[signal.Signals] = []
        self._pipe: tuple[int, int] | None = None
        self._wakeup = -1

    def __enter__(self) -> "EndsWhenPreempted":
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
        os.close(self._pipe[1])  # which ends the thread

    def _listen(self, descriptor: int) -> None:
        """The kernel's handler writes each signal's number, also while the main thread is in a long call."""
        with contextlib.suppress(OSError):
            while numbers := os.read(descriptor, 64):
                for number in numbers:
                    if number in self._installed and signal.getsignal(number) == self._handle:
                        _leave(number)
            os.close(descriptor)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        _leave(number)


def _leave(number: int) -> None:
    with contextlib.suppress(Exception):  # this may have interrupted a print
        sys.stdout.flush()
    line = (
        f"\nringrl: preempted: {signal.Signals(number).name} while there was nothing to save. "
        f"Exit code {REQUEUE} asks to be queued again.\n"
    )
    with contextlib.suppress(OSError):
        os.write(2, line.encode())
    os._exit(REQUEUE)
