"""Strict numerics, eight virtual devices, a data cache of its own, and the command line as a function."""

import dataclasses
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "disable")

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 8)  # the first one does all that knows no mesh
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def data_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's data."""
    folder = tmp_path_factory.getbasetemp() / "data_cache"
    monkeypatch.setenv("RINGRL_DATA", str(folder))
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    return folder


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of an error that the user is to put right; fails unless it is just that."""
        lines = [line for line in self.err.splitlines() if line.startswith("ringrl: error: ")]
        assert self.code == 2, f"exit code {self.code}: {self.err}"
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err, self.err
        return lines[0].removeprefix("ringrl: error: ")


@pytest.fixture
def ringrl(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`ringrl("train", "seed=1")` runs a command in this process, in an empty folder."""
    from absl import logging as absl_logging

    from ringrl.cli.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    # Hydra sets up logging anew, which makes absl close the stream it found when it was imported: pytest's own.
    monkeypatch.setattr(absl_logging.get_absl_handler().python_handler, "stream", sys.__stderr__)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def call(*words: str) -> Outcome:
        capfd.readouterr()
        try:
            code = main(list(words))
        except SystemExit as stop:  # how argparse and Hydra's --help end
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    yield call
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
