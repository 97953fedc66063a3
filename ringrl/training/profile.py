"""A short trace of training for TensorBoard's profiler (xprof)."""

from pathlib import Path
from types import TracebackType

import jax

from ringrl.errors import RingRLError

PROFILE_AFTER = 5  # steps of this run before the trace: caches and buffers are warm by then
PROFILE_STEPS = 3


class ProfileWindow:
    """Context manager that traces devices and host from step `first`, for `steps` steps, into `folder`.

    The trace is `folder`/plugins/profile/<time>/<host>.xplane.pb, where TensorBoard looks for it. Leaving the context
    ends a trace in progress, so that a run that ends early or fails keeps it. Without a folder nothing is traced: of
    several processes only process 0 gets one, and its trace shows its own devices. Raises RingRLError if another trace
    is running, or the trace cannot be written.
    """

    def __init__(self, folder: Path | str | None, first: int, steps: int = PROFILE_STEPS) -> None:
        self._folder, self._first, self._stop = folder, first, first + steps
        self._tracing = False
        self._done = folder is None or steps < 1

    def __enter__(self) -> "ProfileWindow":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._tracing:
            self._end()

    def due(self, step: int) -> bool:
        """Whether `at(step)` begins or ends the trace; wait for the dispatched steps before that."""
        return not self._done and step >= (self._stop if self._tracing else self._first)

    def at(self, step: int) -> None:
        """Begin or end the trace; called before each step, counted from 0."""
        if not self.due(step):
            return
        if self._tracing:
            self._end()
        else:
            self._begin()

    def _begin(self) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # every Python call: large, slow, and nothing about the device
        try:
            jax.profiler.start_trace(str(self._folder), profiler_options=options)
        except RuntimeError as error:
            raise self._fault(error) from error
        self._tracing = True

    def _end(self) -> None:
        self._tracing, self._done = False, True
        try:
            jax.profiler.stop_trace()
        except (RuntimeError, OSError) as error:
            raise self._fault(error) from error

    def _fault(self, error: Exception) -> RingRLError:
        return RingRLError(
            f"profile=true: no trace in {self._folder}: {error}. Mend that, or train with profile=false."
        )


def profile_window(folder: Path | str | None, start: int, stop: int) -> ProfileWindow:
    """The window of a run from step `start` to `stop`: after a few steps, or earlier in a shorter run."""
    return ProfileWindow(folder, start + max(min(PROFILE_AFTER, stop - start - PROFILE_STEPS), 0))
