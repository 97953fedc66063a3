"""Packages that import what they offer when it is asked for.

Reading a configuration needs the small config modules of most packages. Were their `__init__` files to import the rest
as well, refusing a misspelled key would take the seconds that JAX needs to load.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def on_demand(offering: dict[str, Any], homes: Mapping[str, str], package: str = "") -> Callable[[str], Any]:
    """A module's `__getattr__` (PEP 562) that imports a name when it is first asked for.

    Args:
        offering: `globals()` of the module that offers the names.
        homes: the names of each submodule, with spaces between them.
        package: the package of those submodules; the offering module itself unless it says otherwise.

    Returns:
        The function to bind to `__getattr__`, at the top of the offering module.
    """
    home = {name: module for module, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {offering['__name__']!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package or offering['__name__']}.{home[name]}")
        offering[name] = getattr(module, name)
        return offering[name]

    return get
