"""Printing and rejecting a typo work without loading the packages that take seconds to import."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
HEAVY = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax",
    "grain",
    "gymnasium",
    "minari",
    "matplotlib",
    "scipy",
    "tensorboardX",
)


PRINTING = {
    "train agent=att": "did you mean 'at'",
    "train learning_rate=1": "did you mean 'training.optimizer.learning_rate'",
    "train --help": "training.steps=1000",
    "train --cfg job": "bootstrap_samples",
    "data": "No data in",
    "report": "No run in",
}


def test_nothing_heavy_is_loaded(tmp_path: Path) -> None:
    """By commands that print or refuse, one after the other in one process."""
    program = f"""
import contextlib, io, sys
from ringrl.cli.__main__ import main
for line, printed in {PRINTING!r}.items():
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told), contextlib.suppress(SystemExit):
        main(line.split())
    assert printed in told.getvalue(), (line, told.getvalue())
    heavy = [name for name in {HEAVY!r} if name in sys.modules]
    assert not heavy, (line, heavy)
print("none")
"""
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "RINGRL_DATA": str(tmp_path / "data")}  # other tests have left sets in the shared one
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["none"], done.stderr


def test_training_does_not_wait_for_what_is_needed_later() -> None:
    program = (
        "import sys, ringrl.cli.train\n"
        "print([name for name in ('matplotlib', 'scipy.stats', 'orbax', 'grain', 'minari') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[]"


def offering_modules() -> list[Path]:
    return [file for file in sorted((ROOT / "ringrl").rglob("*.py")) if "= on_demand(" in file.read_text()]


@pytest.mark.parametrize("file", offering_modules(), ids=lambda file: file.parent.name + "/" + file.name)
def test_what_a_package_offers_on_demand_is_what_type_checkers_see(file: Path) -> None:
    """The names under TYPE_CHECKING, from the modules that they are said to be in; each can be imported."""
    tree = ast.parse(file.read_text())
    [checked] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        (node.module, alias.name)
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }  # fmt: skip
    [call] = [node.value for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)][:1]
    parts = file.relative_to(ROOT).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    package = ast.literal_eval(call.args[2]) if len(call.args) > 2 else module
    homes = ast.literal_eval(call.args[1])
    assert {(f"{package}.{home}", name) for home, names in homes.items() for name in names.split()} == seen
    offered = importlib.import_module(module)
    for home, name in seen:
        assert getattr(offered, name) is getattr(importlib.import_module(home), name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = offered.nothing
