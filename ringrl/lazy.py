"""Packages that import their public names on first access.

Reading a configuration needs the small config modules of most packages. If their `__init__` files imported everything,
reporting a misspelled key would take the seconds that JAX needs to load.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def on_demand(offering: dict[str, Any], homes: Mapping[str, str], package: str = "") -> Callable[[str], Any]:
    """Create a module's `__getattr__` (PEP 562) that imports a name on first access.

    Args:
        offering: `globals()` of the module that exports the names.
        homes: the names in each submodule, separated by spaces.
        package: the package of those submodules; by default the exporting module itself.

    Returns:
        The function to bind to `__getattr__` at the top level of the exporting module.
    """
    home = {name: module for module, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {offering['__name__']!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package or offering['__name__']}.{home[name]}")
        offering[name] = getattr(module, name)
        return offering[name]

    return get
