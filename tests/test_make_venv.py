"""The Python version that `make install` selects: a tested one that can create environments."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
VERSION = platform.python_version()
# Reports the version of the test's own Python; an environment that it creates is a copy of itself.
PYTHON = f"""#!/bin/bash
case "$1 $2" in
  "-m venv") mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && echo "$3" >> "$4.made" ;;
  "-m pip") test -e "$(dirname "$0")/../pip" ;;
  *) exec {sys.executable} "$@" ;;
esac
"""
SHIM = "#!/bin/bash\necho 'pyenv: no such command in the active version' >&2; exit 127\n"
WITHOUT_VENV = f"""#!/bin/bash
exec {sys.executable} -c "import sys; sys.modules['ensurepip'] = None; exec(sys.argv[1])" "$2"
"""
OLD = f"""#!/bin/bash
exec {sys.executable} -c "import sys; sys.version_info = (3, 10, 2); exec(sys.argv[1])" "$2"
"""
UNTESTED = OLD.replace("3, 10, 2", "3, 14, 0")


@pytest.fixture
def make_venv(tmp_path: Path):
    """make_venv(python3_11=SCRIPT, ..., PYTHON=PATH): code and output, with those Pythons and no others on the path."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("bash", "env", "mkdir", "cp", "dirname"):
        [found] = [Path(folder, name) for folder in ("/usr/bin", "/bin") if Path(folder, name).exists()][:1]
        (commands / name).symlink_to(found)

    def put(path: Path, script: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)

    def run(pyenv: str = "", PYTHON: str = "", **pythons: str) -> tuple[int, str]:
        for name, script in pythons.items():
            put(commands / name.replace("_", "."), script)
        if pyenv:
            put(tmp_path / ".pyenv" / "versions" / "3.12.1" / "bin" / "python", pyenv)
        environment = {"PATH": str(commands), "HOME": str(tmp_path)} | ({"PYTHON": PYTHON} if PYTHON else {})
        command = [str(ROOT / ".ci" / "make_venv"), "venv"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, (done.stdout + done.stderr).removeprefix("make install: ").rstrip()

    return run


TAKEN = (0, f"Python {VERSION}, {sys.executable}")


@pytest.mark.parametrize(
    "pythons",
    [
        {"python3_11": SHIM, "python3_12": WITHOUT_VENV, "python3_13": PYTHON},
        {"python3": PYTHON},
        {"python3": OLD, "python3_13": PYTHON},
        {"python3_11": SHIM, "python3": SHIM, "pyenv": PYTHON},
    ],
)
def test_a_python_that_serves_is_found_and_named(make_venv, tmp_path: Path, pythons: dict[str, str]) -> None:
    assert make_venv(**pythons) == TAKEN
    assert (tmp_path / "venv" / "bin" / "python").exists()


@pytest.mark.parametrize("python3", [SHIM, OLD, WITHOUT_VENV, UNTESTED])
def test_where_none_serves_one_line_says_so(make_venv, tmp_path: Path, python3: str) -> None:
    said = "no Python 3.11, 3.12 or 3.13 with venv is here: name one with PYTHON=/path/to/python3"
    assert make_venv(python3=python3) == (1, said)
    assert not (tmp_path / "venv").exists()


def test_the_named_python_is_taken_or_refused_and_may_be_newer(make_venv) -> None:
    code, said = make_venv(python3_13=PYTHON, python3_10=OLD, PYTHON="python3.10")
    assert (code, said) == (1, "PYTHON=python3.10 is no Python from 3.11 on with venv")
    assert make_venv(python3_14=UNTESTED, PYTHON="python3.14")[1].startswith(f"Python {VERSION}")


def test_an_environment_is_kept_unless_it_has_no_pip(make_venv, tmp_path: Path) -> None:
    made = tmp_path / "venv.made"
    assert make_venv(python3=PYTHON) == TAKEN
    assert make_venv() == TAKEN, "an interrupted installation"
    assert made.read_text().split() == ["--clear"] * 2
    (tmp_path / "venv" / "pip").touch()
    assert make_venv(python3=SHIM) == TAKEN, "none other is needed"
    assert make_venv(python3_13=PYTHON, PYTHON="python3.13") == TAKEN, "the same Python"
    assert made.read_text().split() == ["--clear"] * 2


def test_the_makefile_asks_it() -> None:
    assert os.access(ROOT / ".ci" / "make_venv", os.X_OK)
    assert ".ci/make_venv $(VENV)" in (ROOT / "Makefile").read_text()
