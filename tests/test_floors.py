"""Import rules between packages, dependencies of the lower packages, and file sizes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BASE = {"types", "errors", "files", "lazy", "devices"}
ROOMS = {
    "types": {"lazy", "chain"},
    "chain": set(),
    "lazy": set(),
    "devices": set(),
    "errors": set(),
    "files": {"errors"},
    "ops": BASE,
    "nn": {*BASE, "ops"},
    "agents": {*BASE, "ops", "nn", "parallel"},
    "data": BASE,
    "parallel": BASE,
    "online": BASE,
    "training": {*BASE, "ops", "nn", "agents", "parallel"},
    "evaluation": {*BASE, "ops", "nn", "agents", "parallel", "envs"},
    "planning": {*BASE, "ops", "nn", "agents", "parallel", "training", "evaluation"},
    "config": {*BASE, *("ops", "nn", "agents", "data", "online", "parallel", "training", "evaluation", "planning")},
    "runs": {*BASE, "ops", "agents", "data", "parallel", "training", "evaluation", "config"},
    "cli": {*BASE, *("ops", "nn", "agents", "data", "online", "parallel", "training", "evaluation", "planning")}
    | {"config", "runs", "envs"},
    "envs": set(),
    "__main__": {"cli"},
}
PLANNING = {  # allowed imports within `ringrl.planning`
    "__init__": set(),
    "cluster": set(),
    "hlo": set(),
    "plan": {"cluster", "hlo"},
    "model": {"cluster", "hlo", "plan"},
    "compile": {"cluster", "hlo", "plan"},
    "search": {"cluster", "plan"},
    "report": {"cluster", "plan", "search"},
}
EXPANDED = ("ringrl", "ringrl.planning")  # packages whose submodules are distinguished
ROOM_OF_LIBRARY = {"hydra": {"config", "cli"}, "omegaconf": {"config", "cli"}, "mujoco": {"envs"}}
FOLDERS = ("ringrl", "envs", "experiments", "tests")
LONGEST = 350  # lines of a file
HEAVY = ("gymnasium", "gymnasium_robotics", "mujoco", "minari", "hydra", "omegaconf", "ringrl_envs", "grain")


def python_files() -> list[Path]:
    return sorted([*(ROOT / "ringrl").rglob("*.py"), *(ROOT / "envs" / "ringrl_envs").rglob("*.py")])


def room_of(module: str) -> str | None:
    """The package of a module: `ringrl.nn.block` -> nn; `ringrl_envs.x` -> envs; None for `ringrl` and others."""
    parts = module.removesuffix(".__init__").split(".")
    if parts[0] == "ringrl_envs":
        return "envs"
    return parts[1] if parts[0] == "ringrl" and len(parts) > 1 else None


def module_of(file: Path) -> str:
    base = ROOT if (ROOT / "ringrl") in file.parents else ROOT / "envs"
    return ".".join(file.relative_to(base).with_suffix("").parts)


def imports_of(source: str, module: str) -> set[str]:
    """Every module imported anywhere in the source, inside functions too; `from ringrl import ops` is `ringrl.ops`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{origin}.{name.name}" for name in node.names} if origin in EXPANDED else {origin}
    return found


def violations(source: str, module: str) -> list[str]:
    room = room_of(module)
    if room is None:
        return []
    wrong = []
    for name in sorted(imports_of(source, module)):
        other = room_of(name)
        if other == "__version__":
            continue
        if other is not None and other != room and other not in ROOMS[room]:
            wrong.append(f"{module} imports {name}")
        rooms = ROOM_OF_LIBRARY.get(name.split(".")[0])
        if rooms is not None and room not in rooms:
            wrong.append(f"{module} imports {name}")
    return wrong


def part_of_planning(module: str) -> str | None:
    """The part of planning of a module: `ringrl.planning.hlo.parser` -> hlo; None outside of planning."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["ringrl", "planning"] and len(parts) > 2 else None


def violations_in_planning(source: str, module: str) -> list[str]:
    part = part_of_planning(module)
    if part is None:
        return []
    allowed = {None, part, *PLANNING[part]}
    return [
        f"{module} imports {name}"
        for name in sorted(imports_of(source, module))
        if part_of_planning(name) not in allowed
    ]


def test_every_room_is_known() -> None:
    rooms = {room_of(module_of(file)) for file in python_files()} - {None}
    assert rooms <= set(ROOMS)


def test_no_room_imports_a_higher_one() -> None:
    wrong = [line for file in python_files() for line in violations(file.read_text(), module_of(file))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ringrl.ops.masks", "from ringrl.nn import block"),
        ("ringrl.nn.block", "def f():\n    import ringrl.training.step"),
        ("ringrl.data.store", "from ringrl import agents"),
        ("ringrl.training.loop", "from ringrl.evaluation.rollout import rollout"),
        ("ringrl.training.loop", "from ..evaluation import rollout"),
        ("ringrl.agents.x", "from ringrl.config import TrainCommand"),
        ("ringrl.runs.agent", "from ringrl.cli.train import run"),
        ("ringrl.agents.x", "from ringrl import make_agent"),
        ("ringrl.data.store", "import omegaconf"),
        ("ringrl_envs.registry", "import ringrl.types"),
        ("ringrl.training.step", "import ringrl_envs"),
    ],
)
def test_the_check_sees(module: str, source: str) -> None:
    assert violations(source, module)


def test_planning_imports_run_one_way() -> None:
    modules = {module_of(file): file.read_text() for file in python_files()}
    assert {part_of_planning(module) for module in modules} - {None} == set(PLANNING)
    wrong = [line for module, source in modules.items() for line in violations_in_planning(source, module)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ringrl.planning.hlo.parser", "from ringrl.planning.plan import Plan"),
        ("ringrl.planning.cluster.targets", "import ringrl.planning.hlo.parser"),
        ("ringrl.planning.model.memory", "def f():\n    from ringrl.planning.compile import worker"),
        ("ringrl.planning.search", "from .report import figures"),
        ("ringrl.planning.hlo.places", "from ringrl.planning import plan"),
    ],
)
def test_the_check_of_planning_sees(module: str, source: str) -> None:
    assert violations_in_planning(source, module)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_file_is_too_long(folder: str) -> None:
    lengths = {file: len(file.read_text().splitlines()) for file in (ROOT / folder).rglob("*.py")}
    assert lengths, f"{folder} holds no Python"
    long = {str(file.relative_to(ROOT)): length for file, length in lengths.items() if length > LONGEST}
    assert not long, f"more than {LONGEST} lines; split each where its subject changes: {long}"


def test_lower_floors_run_without_environments_and_configuration() -> None:
    """On a machine with only the numerical packages, the model and the trainer can be imported."""
    rooms = ("ops", "nn", "agents", "online", "parallel", "training")
    modules = ["ringrl.types", "ringrl.errors"]
    modules += [module_of(f).removesuffix(".__init__") for f in python_files() if room_of(module_of(f)) in rooms]
    program = f"""
import importlib, importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
for module in {modules!r}:
    importlib.import_module(module)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
