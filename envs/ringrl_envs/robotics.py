"""gymnasium-robotics, imported only when it is needed, and quietly."""

import contextlib
import importlib
import importlib.util
import io
from types import ModuleType

INSTALL = "pip install 'ringrl[robotics]'"


def has_robotics() -> bool:
    """Whether gymnasium-robotics and mujoco are installed, without importing them."""
    return all(importlib.util.find_spec(name) is not None for name in ("gymnasium_robotics", "mujoco"))


def robotics_module(name: str = "") -> ModuleType:
    """The package, or a module of it; the import also registers its environments.

    Raises:
        ValueError: not installed.
    """
    if not has_robotics():
        raise ValueError(f"Mazes, Kitchen and Adroit need gymnasium-robotics and mujoco: {INSTALL}.")
    with contextlib.redirect_stderr(io.StringIO()):  # it prints notices to every user of every environment
        return importlib.import_module(f"gymnasium_robotics.{name}" if name else "gymnasium_robotics")
