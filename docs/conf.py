"""How Sphinx builds these pages: `make docs`."""

import dataclasses
import enum
import inspect
import re
import typing
from typing import Any

from sphinx.application import Sphinx

import ringrl
from ringrl.cli.keys import descriptions

project = "RingRL"
author = "the RingRL authors"
project_copyright = author
release = version = ringrl.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"RingRL {release}"
html_copy_source = False
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
suppress_warnings = ["config.cache"]  # autodoc's hook below is a function


def find_choices(kind: type[enum.Enum]) -> dict[str, str]:
    """The members of an enum, each with the comment behind it."""
    found = re.findall(r'^    (\w+) = "\w+"(?:  # (.*))?$', inspect.getsource(kind), re.MULTILINE)
    return dict(found)


def add_fields(app: Sphinx, what: str, name: str, offered: Any, options: Any, lines: list[str]) -> None:
    """Give a configuration its fields, and an enum its members, from the comments in their source."""
    if what != "class":
        return
    if dataclasses.is_dataclass(offered):
        hints = typing.get_type_hints(offered)
        told = descriptions(offered)  # type: ignore[arg-type]
        rows = {field: text or (hints[field].__doc__ or "").split("\n")[0] for field, text in told.items()}
    elif issubclass(offered, enum.Enum):
        rows = find_choices(offered)
    else:
        return
    lines += ["", "Attributes:", *(f"    {row}: {text}" for row, text in rows.items()), ""]


def shorten_arrays(app: Sphinx, *args: Any) -> tuple[str | None, str | None]:
    """jaxtyping's annotations with `Array` for JAX's array, whose module is private."""
    signature, returned = args[-2:]
    return tuple(text and text.replace("jaxlib._jax.Array", "Array") for text in (signature, returned))


def setup(app: Sphinx) -> None:
    """Called by Sphinx; the hook comes before napoleon's, which reads what it adds."""
    app.connect("autodoc-process-docstring", add_fields, priority=400)
    app.connect("autodoc-process-signature", shorten_arrays)
