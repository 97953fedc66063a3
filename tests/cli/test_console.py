"""Console output is also written to the run's log, parallel jobs prefix their lines, and long work reports progress."""

import io
import logging
import time

import pytest
from rich.table import Table

from ringrl.cli import console as console_module
from ringrl.cli.console import format_return, output, progress_bar, progress_output
from ringrl.training.heartbeat import Heartbeat, format_duration, format_rate
from ringrl.training.progress import TrainingProgress


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture):
    """Messages logged from INFO on."""
    caplog.set_level(logging.INFO)
    return caplog


def test_what_is_printed_is_logged(capsys: pytest.CaptureFixture[str], log) -> None:
    table = Table("name", "value")
    table.add_row("loss", "0.5")
    output().print("run folder: x")
    output(80).print(table)
    printed = capsys.readouterr().out
    assert printed.startswith("run folder: x\n")
    assert log.messages[0] == "run folder: x"
    assert log.messages[1] == "\n" + printed.split("\n", 1)[1].rstrip()
    output(logged=False).print("not twice")
    assert len(log.messages) == 2


def test_a_console_outlives_its_stream_and_does_not_close_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 warns of a stream that cannot be closed when it is collected."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written)
    monkeypatch.setattr("sys.stdout", stream)
    first, second = output(), output()
    first.file.close()
    second.print("still open")
    assert written.getvalue() == b"still open\n"
    stream.close()
    second.file.close()


def test_side_by_side_jobs_begin_every_line_with_their_name(capsys, log, monkeypatch) -> None:
    monkeypatch.setattr(console_module, "job_prefix", lambda: "[at_seed0] ")
    output().print("one\ntwo")
    progress_output().print("half way")
    captured = capsys.readouterr()
    assert captured.out == "[at_seed0] one\n[at_seed0] two\n"
    assert captured.err == "[at_seed0] half way\n"
    assert log.messages == ["\none\ntwo"], "the log is the job's own"


def test_off_a_terminal_long_work_says_where_it_is(capsys, log, monkeypatch) -> None:
    monkeypatch.setattr(console_module, "Heartbeat", lambda label, say: Heartbeat(label, say=say, every=0.01))
    with progress_bar("trials") as advance:
        advance(0, 8)
        advance(4, 8)
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("trials: 4/8, ")
    assert lines[0].endswith(" left")
    assert lines[-1].startswith("trials: 4 done in ")
    assert log.messages == lines


def test_short_work_says_nothing(capsys) -> None:
    with progress_bar("trials") as advance:
        advance(8, 8)
    assert capsys.readouterr().err == ""


def test_a_heartbeat_tells_rate_and_time_left() -> None:
    now = [100.0]
    beat = Heartbeat("steps", say=lambda line: None, clock=lambda: now[0])
    now[0] += 30
    assert beat.line() == "steps: at work for 30 s"
    beat.advance(1000, 5000)  # what a resumed piece of work had done before
    now[0] += 100
    beat.advance(1200, 5000)
    assert beat.line() == "steps: 1,200/5,000, 2/s, 31 min 40 s left"
    assert [format_duration(seconds) for seconds in (0.4, 59.4, 60, 3725)] == ["0 s", "59 s", "1 min 0 s", "1 h 2 min"]
    assert [format_rate(rate) for rate in (1234.0, 0.05)] == ["1.23e+03/s", "3/min"]


def test_training_says_a_line_a_minute_and_ends_with_one(log) -> None:
    from rich.console import Console

    now, shown = [0.0], io.StringIO()
    progress = TrainingProgress(100_000, console=Console(file=shown), clock=lambda: now[0])
    with progress:
        for step in range(1, 14):
            now[0] += 10.0
            progress.update(step, 0.5, 0.1, 100.0)
        progress.update(100_000, 0.25, 0.1, 100.0)
    lines = shown.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step 6/100000", "step 12/100000", "step 100000/100000"]
    assert lines[0].endswith("loss 0.5000, 999940 s left")
    assert log.messages == lines


def test_on_a_terminal_the_lines_are_in_the_log_alone(log) -> None:
    from rich.console import Console

    shown = io.StringIO()
    with TrainingProgress(10, console=Console(file=shown, force_terminal=True)) as progress:
        progress.update(10, 0.25, 0.1, 100.0)
    assert log.messages == ["step 10/10, 0.1 steps/s, 0.1k tokens/s, loss 0.2500, 0 s left"]
    assert log.messages[0] not in shown.getvalue()


LONG = "ringrl--" + "a_name_that_no_terminal_is_wide_enough_for_" * 5 + "v0"


def test_a_pipe_gets_whole_names(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    table = Table(box=None, pad_edge=False)
    for name in ("set", "environment"):
        table.add_column(name)
    table.add_row(LONG, LONG)
    output().print(table)
    assert capsys.readouterr().out.splitlines()[1].split() == [LONG, LONG]


def test_columns_that_are_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table = Table(box=None)
    table.add_column("set")
    table.add_row(LONG)
    output().print(table)
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= 40


def test_returns_of_any_unit_show() -> None:
    assert [format_return(value) for value in (13.619, 0.0, -0.25, -1.234e-5)] == [
        "13.62",
        "0.00",
        "-0.25",
        "-1.23e-05",
    ]
