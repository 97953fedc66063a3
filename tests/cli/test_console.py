"""What is printed when standard output is a pipe or a file."""

import pytest
from rich.table import Table

from ringrl.cli.console import output

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
