"""Every package that the code imports, at module level or inside a function, is installed by a declared dependency."""

import ast
import importlib
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Distributions whose names differ from those of their packages.
DISTRIBUTION = {"pil": "pillow", "hydra": "hydra-core", "orbax": "orbax-checkpoint", "yaml": "pyyaml"}
BY_OTHERS = {"omegaconf": "hydra-core", "numpy": "jax"}  # imported packages that are parts of a declared package
# Extras whose packages the code may import, and then inside functions alone or in modules of that extra alone.
RUN_TIME_EXTRAS = ("robotics", "dmc", "bench")
SIMULATORS = ("mujoco", "dm_control", "gymnasium_robotics")


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("-", "_")


def _declared(*extras: str) -> set[str]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return {_name(line) for line in lines}


def _foreign_imports(file: Path) -> set[tuple[str, bool]]:
    """(package, whether the import runs on loading the module) of every third-party import."""
    tree = ast.parse(file.read_text())
    always = {id(node) for node in tree.body}
    found = set()
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
        for name in (name.split(".")[0] for name in names):
            if name not in sys.stdlib_module_names and name not in ("ringrl", "ringrl_envs"):
                found.add((name, id(node) in always))
    return found


def _undeclared(file: Path) -> list[str]:
    wrong = []
    for package, at_once in _foreign_imports(file):
        lower = package.lower()
        name = BY_OTHERS.get(lower, DISTRIBUTION.get(lower, lower)).replace("-", "_")
        allowed = _declared() if at_once and package not in SIMULATORS else _declared(*RUN_TIME_EXTRAS)
        if name not in allowed:
            wrong.append(f"{file.relative_to(ROOT)} imports {package}")
    return wrong


def test_every_import_is_declared() -> None:
    files = [*(ROOT / "ringrl").rglob("*.py"), *(ROOT / "envs").rglob("*.py")]
    assert [line for file in sorted(files) for line in _undeclared(file)] == []


def test_the_check_sees_imports_in_functions() -> None:
    """`ringattention` is imported in a function of one module, of an extra: a scan of top levels would miss it."""
    imports = _foreign_imports(ROOT / "ringrl" / "cli" / "attention_benchmark.py")
    assert ("ringattention", False) in imports
    assert "ringattention" not in _declared()
    assert "ringattention" in _declared("bench")


@pytest.mark.parametrize(
    ("requirement", "module"),
    [
        ("minari[hf]", "minari.storage.remotes.huggingface"),
        ("minari[hdf5]", "minari.dataset._storages.hdf5_storage"),
        ("minari[create]", "minari.data_collector"),
    ],
)
def test_parts_of_libraries_that_need_their_extras(requirement: str, module: str) -> None:
    """What README's commands reach inside other packages: the extra is declared, and its module loads."""
    package, extra = requirement[:-1].split("[")
    [line] = [line for line in PROJECT["dependencies"] if line.startswith(f"{package}[")]
    assert extra in line.split("[")[1].split("]")[0].split(",")
    importlib.import_module(module)


def test_pins_cover_what_the_declared_packages_need_in_turn() -> None:
    """Of everything installed that a declared package requires, on this platform, constraints.txt has the version."""
    pins = {_name(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"}
    extras = [line for name in ("robotics", "dmc", "sweep", "bench", "docs", "dev") for line in
              PROJECT["optional-dependencies"][name]]  # fmt: skip
    waiting = [Requirement(line) for line in [*PROJECT["dependencies"], *extras]]
    seen: set[tuple[str, frozenset[str]]] = set()
    missing = set()
    while waiting:
        needed = waiting.pop()
        key = (_name(needed.name), frozenset(needed.extras))
        if key in seen:
            continue
        seen.add(key)
        if key[0] not in pins:
            missing.add(key[0])
        try:
            below = metadata.requires(needed.name) or []
        except metadata.PackageNotFoundError:
            continue
        for line in below:
            one = Requirement(line)
            environments = [{"extra": extra} for extra in (*needed.extras, "")]
            if one.marker is None or any(one.marker.evaluate(environment) for environment in environments):
                waiting.append(one)
    assert missing <= {"setuptools"}  # comes with Python
