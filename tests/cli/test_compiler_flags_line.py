"""`ringrl train` says which flags its devices' compiler is given."""

import io
import logging
import types

import numpy as np
import pytest
from rich.console import Console

from ringrl.cli.devices import show_compiler_flags


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("TPU v3", "compiler flags for 8 x TPU v3: xla_enable_async_collective_permute=True\n"),
        ("TPU v4", ""),
    ],
)
def test_flags_are_shown_and_logged(kind: str, line: str, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS"):
        monkeypatch.delenv(name, raising=False)
    devices = np.asarray([types.SimpleNamespace(device_kind=kind)] * 8, object)
    printed = io.StringIO()
    with caplog.at_level(logging.INFO):
        show_compiler_flags(types.SimpleNamespace(size=8, devices=devices), Console(file=printed, soft_wrap=True))
    assert printed.getvalue() == line
    assert caplog.messages == ([line.strip()] if line else [])
