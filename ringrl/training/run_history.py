"""The losses and evaluations of a whole run, however often it was resumed, as two small CSV files in its folder.

    losses.csv        step,loss: every step
    evaluations.csv   step,first,last,mean,best,score: every evaluation

Lines are appended during training, and are on the disk before the checkpoint of their step: so a resumed run finds all
lines up to its checkpoint, and removes those after it.
"""

import io
import time
from collections.abc import Mapping
from pathlib import Path

from ringrl.errors import RingRLError
from ringrl.files import replacing

LOSSES_FILE, EVALUATIONS_FILE = "losses.csv", "evaluations.csv"
_FLUSH_SECONDS = 10.0


class RunHistory:
    """Appends to the two files of a run folder; usable as a context manager.

    Args:
        folder: The run folder.
        step: The run's step when it starts or is resumed; lines of later steps are removed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.losses: dict[int, float] = {}  # by step, of the whole run
        self.evaluations: dict[int, dict[str, float]] = {}  # by step, each with the same names
        self._flushed = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._losses = _Table(folder / LOSSES_FILE, step)
            self._evaluations = _Table(folder / EVALUATIONS_FILE, step)
        except OSError as error:
            raise _fault(folder, error) from error
        self._folder = folder
        self.losses.update({step: row["loss"] for step, row in self._losses.rows.items() if "loss" in row})
        self.evaluations.update(self._evaluations.rows)

    def __enter__(self) -> "RunHistory":
        return self

    def __exit__(self, *_: object) -> None:
        for table in (self._losses, self._evaluations):
            table.close()

    def add_loss(self, step: int, loss: float) -> None:
        """Record the loss of a step."""
        self.losses[step] = loss
        self._losses.add(step, {"loss": loss})
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def add_evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Record the scores of an evaluation, replacing an earlier one of the same step."""
        self.evaluations[step] = dict(scores)
        self._evaluations.add(step, scores)
        self.flush()

    def flush(self) -> None:
        """Write buffered lines. Raises RingRLError if the disk is full."""
        try:
            for table in (self._losses, self._evaluations):
                table.flush()
        except OSError as error:
            raise _fault(self._folder, error) from error
        self._flushed = time.monotonic()


class _Table:
    """One CSV file whose first column is the step; the last line of a step counts."""

    def __init__(self, path: Path, step: int) -> None:
        self.rows, self._names = _read(path, step)
        if self.rows:  # drop lines of later steps, and a partial line of a killed process
            text = io.StringIO()
            text.write(",".join(("step", *self._names)) + "\n")
            for number, row in sorted(self.rows.items()):
                text.write(_line(number, row, self._names))
            with replacing(path) as temporary:
                temporary.write_text(text.getvalue())
        else:
            path.unlink(missing_ok=True)
        self._path, self._file = path, None

    def add(self, step: int, row: Mapping[str, float]) -> None:
        """Buffer a line."""
        if self._file is None:
            self._names = self._names or tuple(row)
            fresh = not self.rows
            self._file = self._path.open("a", encoding="utf-8")
            if fresh:
                self._file.write(",".join(("step", *self._names)) + "\n")
        self._file.write(_line(step, row, self._names))

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_losses(folder: Path) -> dict[int, float]:
    """The losses in a run folder, by step."""
    rows, _ = _read(folder / LOSSES_FILE, None)
    return {step: row["loss"] for step, row in rows.items() if "loss" in row}


def _read(path: Path, last: int | None) -> tuple[dict[int, dict[str, float]], tuple[str, ...]]:
    """Rows by step, up to step `last`, and their column names. Incomplete lines are skipped."""
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    except (FileNotFoundError, UnicodeDecodeError):
        return {}, ()
    names = tuple(head.strip().split(",")[1:])
    rows: dict[int, dict[str, float]] = {}
    for line in lines:
        cells = line.strip().split(",")
        if not line.endswith("\n") or len(cells) != len(names) + 1:
            continue
        try:
            step, *values = int(cells[0]), *map(float, cells[1:])
        except ValueError:
            continue
        if last is None or step <= last:
            rows[step] = dict(zip(names, values, strict=True))
    return rows, names


def _line(step: int, row: Mapping[str, float], names: tuple[str, ...]) -> str:
    return ",".join([str(step), *(repr(float(row.get(name, float("nan")))) for name in names)]) + "\n"


def _fault(folder: Path, error: OSError) -> RingRLError:
    return RingRLError(f"Cannot write the losses of the run in {folder}: {error.strerror}; free some space.")
