"""Contents of the wheel: it includes the configuration, and nothing that collides with other packages."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_both_packages_and_the_configuration(wheel_names: list[str]) -> None:
    shipped = {file.relative_to(ROOT / "conf").as_posix() for file in (ROOT / "conf").rglob("*.yaml")}
    assert {name.removeprefix("ringrl/conf/") for name in wheel_names if name.startswith("ringrl/conf/")} == shipped
    assert {"ringrl/cli/__main__.py", "ringrl_envs/__init__.py"} <= set(wheel_names)


def test_the_wheel_tells_type_checkers_that_it_is_typed(wheel_names: list[str]) -> None:
    assert {"ringrl/py.typed", "ringrl_envs/py.typed"} <= set(wheel_names)


def test_the_wheel_has_no_other_top_level_package(wheel_names: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ringrl", "ringrl_envs"}


def test_pins_have_no_address_and_cover_the_dependencies() -> None:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split(";")[0].split("==")
            assert "/" not in line
            assert "cuda" not in name.lower()
            assert version
            pins[name.lower().replace("_", "-")] = version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pinned = ("robotics", "sweep", "bench", "docs", "dev")
    for needed in [*project["dependencies"], *(line for name in pinned for line in extras[name])]:
        name = needed.split(">")[0].split("=")[0].split("[")[0].lower().replace("_", "-")
        assert name in pins, f"{name} has no pin"


def test_makefile_and_ci_name_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {line.split(":")[0] for line in makefile.splitlines() if line[:1].isalpha() and ":" in line}
    for target in ("install", "quickstart", "test", "lint", "types"):
        assert target in targets
    called = [
        line.split("make ")[1].split()[0]
        for line in (ROOT / ".ci" / "run").read_text().splitlines()
        if "make " in line and not line.startswith("#")
    ]
    assert set(called) <= targets
    assert called[0] == "test"


def test_the_installed_package_finds_its_own_configuration(tmp_path: Path) -> None:
    """Unpacked away from the checkout, the command composes from the copy inside the wheel."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True
    )
    [wheel] = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = (
        "import sys; from ringrl.cli.compose import find_conf_folder; from ringrl.cli.__main__ import main; "
        "print(find_conf_folder()); sys.exit(main(['train', '--cfg', 'job', 'agent=dt', 'data=dark_room']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(tmp_path / "site" / "ringrl" / "conf")
    assert "context: trial" in done.stdout
