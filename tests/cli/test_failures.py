"""Which exceptions become one line, and which are the program's own."""

import errno

import pytest

from ringrl.cli.failures import CRASH, INTERRUPTED, USER_ERROR, describe, guard
from ringrl.errors import RingRLError


def _raise(error: BaseException) -> int:
    raise error


def test_a_full_disk() -> None:
    line = describe(OSError(errno.ENOSPC, "No space left on device", "runs/x.png"))
    assert line == "The disk is full while writing runs/x.png: free some space and run the command again."


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR])
def test_a_folder_that_cannot_be_written(number: int) -> None:
    line = describe(OSError(number, "Read-only file system", "runs/train"))
    assert line is not None
    assert line.startswith("runs/train: read-only file system. Run in a folder that you may write to")
    assert "RINGRL_DATA" in line


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.EIO, "x"), KeyError("x")])
def test_faults_of_the_program_are_not_hidden(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert describe(error) is None
    assert guard(lambda: _raise(error), debug=False) == CRASH
    assert "Traceback" in capsys.readouterr().err


def test_lines_are_single(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard(lambda: _raise(RingRLError("a\n  b")), debug=False) == USER_ERROR
    assert capsys.readouterr().err == "ringrl: error: a b\n"


def test_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard(lambda: _raise(KeyboardInterrupt()), debug=False) == INTERRUPTED
    assert guard(lambda: _raise(KeyboardInterrupt("saved.")), debug=True) == INTERRUPTED
    assert capsys.readouterr().err == "ringrl: interrupted.\nringrl: saved.\n"
