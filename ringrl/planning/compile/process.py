"""Compilers for absent devices, each run in a separate process.

A separate process is needed because these compilers are configured by environment variables that JAX reads when it
starts, and because they are in a folder (`make aot`) that other programs must not find: if JAX finds `libtpu`, it looks
for a TPU.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ringrl.errors import RingRLError
from ringrl.planning.cluster.compilers import COMPILERS as COMPILERS
from ringrl.planning.cluster.targets import Target
from ringrl.planning.plan import Plan, Report, report_from_json

ERROR_EXIT_CODE = 3  # the worker's exit code for a one-line RingRLError about a plan
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # no request to a cloud's metadata server
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # otherwise a second process finds a lock file
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",  # there are no CUDA libraries
}
_NAMES_AN_ERROR = re.compile(r"(?:[a-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt)\b")
_PACKAGES = {"tpu": ("libtpu",), "cuda": ("jax_cuda13_plugin", "jax_cuda12_plugin"), "cpu": ("jaxlib",)}


def has_compiler(target: Target) -> bool:
    """Whether a compiler for the target is installed, in the folder of `make aot` or in the environment itself."""
    folders = [COMPILERS, *(Path(entry) for entry in sys.path if entry)]
    return any((folder / package).is_dir() for folder in folders for package in _PACKAGES[target.platform])


def compile_plan(plan: Plan, *, cache: Path | None = None, scratch: Path | None = None) -> Report:
    """Compile a plan with the target's compiler, or return the report on the same program from `cache`.

    A plan whose compilation crashes stays in `scratch`. Raises RingRLError if the compiler is missing, refuses for
    another reason than memory, or crashes: with its last message, and the command that repeats it.
    """
    with tempfile.TemporaryDirectory(prefix="ringrl-plan-") as temporary:
        asked, told = Path(temporary) / "plan.json", Path(temporary) / "report.json"
        asked.write_text(plan.to_json())
        done = run_apart("ringrl.planning.compile.worker", [asked, told, *([] if cache is None else [cache])])
        if done.returncode == 0 and told.is_file():
            return report_from_json(told.read_text())
        last = _last_words(done.stderr)
        if done.returncode == ERROR_EXIT_CODE:
            raise RingRLError(last)
        again = ""
        if scratch is not None:
            kept = scratch / f"crashed_{plan.tokens}.json"
            kept.write_text(plan.to_json())
            again = f"; to repeat it: {format_repeat_command(kept)}"
        died = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise RingRLError(f"The compiler for {plan.target.topology} failed ({died}): {last}{again}")


def _last_words(text: str) -> str:
    """The line with the last error, or else the last line: JAX prints the origin of a program below it."""
    lines = text.strip().splitlines() or ["it said nothing"]
    return next((line for line in reversed(lines) if _NAMES_AN_ERROR.match(line)), lines[-1])


def format_repeat_command(plan_path: Path) -> str:
    """The shell command that compiles a stored plan again."""
    words = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    words += [f"PYTHONPATH={shlex.quote(str(COMPILERS))}", shlex.quote(sys.executable)]
    return " ".join([*words, "-m ringrl.planning.compile.worker", shlex.quote(str(plan_path)), "report.json"])


def run_apart(module: str, words: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run `python -m module words` with access to the compilers."""
    paths = [str(COMPILERS), *sys.path]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    return subprocess.run(
        [sys.executable, "-P", "-m", module, *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
