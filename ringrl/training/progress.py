"""The progress of training on screen: a bar on a terminal, one line in ten parts of the way elsewhere."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """Shows step, steps/s, tokens/s, loss and time left while entered; `enabled=False` shows nothing."""

    def __init__(self, total: int, start: int = 0, *, enabled: bool = True, console: Console | None = None) -> None:
        self._total = total
        self._enabled = enabled
        self._console = console if console is not None else Console(stderr=True)
        self._line_every = max(total // 10, 1)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if enabled and self._console.is_terminal:
            bar = Progress(
                TextColumn("train"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bar, self._task = bar, bar.add_task("train", total=total, completed=start, text="")

    def __enter__(self) -> "TrainingProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, loss: float, steps_per_second: float, tokens_per_second: float) -> None:
        """Show that `step` steps are done."""
        text = f"{steps_per_second:.1f} steps/s, {tokens_per_second / 1e3:.1f}k tokens/s, loss {loss:.4f}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=text)
        elif self._enabled and (step % self._line_every == 0 or step == self._total):
            left = (self._total - step) / max(steps_per_second, 1e-9)
            self._console.print(f"step {step}/{self._total}, {text}, {left:.0f} s left", highlight=False)
