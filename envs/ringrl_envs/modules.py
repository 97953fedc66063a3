"""Importing what the name, or the record, of an environment says: a module, or a class in a module."""

import importlib
import importlib.machinery
import os
import sys
from types import ModuleType
from typing import Any


def import_environment_module(name: str) -> ModuleType:
    """Import a module; one that is found nowhere else is looked for in the current folder.

    That folder then stays last on Python's path, where it hides no installed package: environments import their own
    parts as late as when they are made. `python -m` would have put it first.

    Raises:
        ValueError: the module cannot be found, or its own code raises; the line says so and what to do.
    """
    try:
        return _import(name)
    except Exception as error:  # the module's own code may raise anything
        line = (str(error).splitlines() or [""])[0]
        remedy = ""
        if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
            remedy = f": install it, start in the folder that holds it (this is {os.getcwd()}), or add it to PYTHONPATH"
        raise ValueError(f"cannot import {name!r} ({type(error).__name__}: {line}){remedy}.") from error


def load_attribute(entry_point: str) -> Any:
    """What `module:name` stands for.

    Raises:
        ValueError: another form, a module that cannot be imported, or one without that name.
    """
    module, colon, attribute = entry_point.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"{entry_point!r} is not of the form module:name.")
    found: Any = import_environment_module(module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{module!r} has no {attribute!r}.")
        found = getattr(found, part)
    return found


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top, here = name.partition(".")[0], os.getcwd()
        if error.name != top or here in sys.path or importlib.machinery.PathFinder.find_spec(top, [here]) is None:
            raise
    sys.path.append(here)
    return importlib.import_module(name)
