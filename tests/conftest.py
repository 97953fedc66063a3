"""Shared fixtures: strict numerics, eight virtual devices, a data cache, and the command line as a function."""

import dataclasses
import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "disable")
os.environ.setdefault("IMAGEIO_FFMPEG_NO_PREVENT_SIGINT", "1")  # otherwise it forks, as in `ringrl`

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jaxlib import xla_client

from ringrl.cli.compilation import VARIABLE, use_compilation_cache

# Half of the tests' time goes into compiling small programs, a third of it into this part of XLA. A flag that a later
# version does not know would end the process. XLA reads its flags once: the processes that tests start optimize their
# programs, and with this flag compile them twice as long.
SIMPLE_PROGRAMS = os.environ.get("XLA_FLAGS", "")
if jax.__version_info__ < (0, 11):
    SIMPLE_PROGRAMS = f"{SIMPLE_PROGRAMS} --xla_cpu_use_fusion_emitters=false".strip()
with pytest.MonkeyPatch.context() as environment:
    environment.setenv("XLA_FLAGS", SIMPLE_PROGRAMS)
    xla_client.CompileOptions()  # reads them

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 8)  # programs without a mesh run on the first device
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)  # of machine code: most programs here run a few times

gc.set_threshold(50_000, 20, 20)  # programs that are traced are millions of objects: a quarter of the time went there
SETTINGS_OF_COMMANDS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def data_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary data cache, so that no test reads or writes the user's data."""
    folder = tmp_path_factory.getbasetemp() / "data_cache"
    monkeypatch.setenv("RINGRL_DATA", str(folder))
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    monkeypatch.setenv(VARIABLE, "")  # tests inspect the compiler; see `compiled_once`
    return folder


@pytest.fixture
def minari_root(data_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Minari's data root, used by both `open_dataset` and `minari.load_dataset`."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    return tmp_path / "sets"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The single line of a user error; fails if there is any other output."""
        lines = [line for line in self.err.splitlines() if line.startswith("ringrl: error: ")]
        assert self.code == 2, f"exit code {self.code}: {self.err}"
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err, self.err
        return lines[0].removeprefix("ringrl: error: ")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder shared by all workers of this test run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def compiled_fast() -> dict[str, str]:
    """Environment variables with which a process compiles as fast as the tests do, for programs that run briefly."""
    return {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": SIMPLE_PROGRAMS}


@pytest.fixture(scope="session")
def compiled_programs(shared_folder: Path, compiled_fast: dict[str, str]) -> dict[str, str]:
    """Environment variables with which processes compile as fast as the tests do and share compiled programs."""
    folder = str(shared_folder / "compiled_by_jax")
    kept = {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    return {**kept, **compiled_fast}


@pytest.fixture
def compiled_once(shared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Enables the compilation cache in this process and those that it starts; other tests inspect the compiler."""
    folder = str(shared_folder / "compiled")
    monkeypatch.setenv(VARIABLE, folder)
    before = {name: jax.config.values[name] for name in SETTINGS_OF_COMMANDS}
    use_compilation_cache(shared_folder, {VARIABLE: folder})
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def ringrl(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiled_once: None):
    """`ringrl("train", "seed=1")` runs a command in this process, in an empty folder."""
    from absl import logging as absl_logging

    from ringrl.cli.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    # Hydra reconfigures logging, which makes absl close the stream it found when it was imported: pytest's own.
    monkeypatch.setattr(absl_logging.get_absl_handler().python_handler, "stream", sys.__stderr__)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def call(*words: str) -> Outcome:
        capfd.readouterr()
        try:
            code = main(list(words))
        except SystemExit as stop:  # raised by argparse and Hydra's --help
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    yield call
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
