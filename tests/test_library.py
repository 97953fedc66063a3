"""The public API of `import ringrl`: everything in `__all__` is documented, and nothing is loaded before it is used."""

import dataclasses
import enum
import inspect
import json
import pkgutil
import subprocess
import sys
import typing
from typing import Any

import pytest

import ringrl
from ringrl.cli.keys import descriptions
from ringrl.errors import RingRLError

LIBRARY = {name: getattr(ringrl, name) for name in ringrl.__all__}
DATACLASSES = [offered for offered in LIBRARY.values() if dataclasses.is_dataclass(offered)]
CONFIGS = [offered for offered in DATACLASSES if offered.__name__.endswith("Config")]


def test_importing_it_starts_nothing() -> None:
    program = """
import json, sys, time
began = time.process_time()  # of this process: others may keep the processor busy
import ringrl
seconds = time.process_time() - began
heavy = [name for name in ("jax", "numpy", "flax", "gymnasium", "ringrl_envs") if name in sys.modules]
print(json.dumps([seconds, heavy, dir(ringrl), ringrl.__all__]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds, heavy, listed, public = json.loads(done.stdout)
    assert seconds < 0.3
    assert heavy == []
    assert {name for name in listed if not name.startswith("__")} == set(public)


def test_nothing_else_is_public() -> None:
    assert not hasattr(ringrl, "make_train_step")
    modules = {module.name for module in pkgutil.iter_modules(ringrl.__path__)}
    assert not modules & set(ringrl.__all__), "a module of that name would hide it"
    assert len(set(ringrl.__all__)) == len(ringrl.__all__)


def documented() -> list[tuple[str, Any]]:
    """Every public function, constructor, and method of several arguments: those of one have a sentence."""
    found = []
    for name, offered in LIBRARY.items():
        if not inspect.isclass(offered):
            found.append((name, offered))
        elif not issubclass(offered, enum.Enum | Exception):
            methods = {key: getattr(value, "__func__", value) for key, value in vars(offered).items() if key[0] != "_"}
            methods = {key: value for key, value in methods.items() if inspect.isfunction(value)}
            found += [(f"{name}.{key}", value) for key, value in methods.items() if len(parameters(value)) > 1]
            if not dataclasses.is_dataclass(offered):
                found.append((f"{name}.__init__", offered.__init__))
    return found


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


@pytest.mark.parametrize(("name", "function"), [pytest.param(*one, id=one[0]) for one in documented()])
def test_functions_say_what_they_take_and_return(name: str, function: Any) -> None:
    text = inspect.getdoc(function) or ""
    assert "Args:" in text, name
    for one in parameters(function):
        assert any(f"{before}{one}{after}" in text for before, after in ((" ", ":"), (" ", ","), (", ", ":"))), (
            f"{name}: say what {one} is"
        )
    gives = inspect.signature(function).return_annotation not in (None, "None", inspect.Signature.empty)
    assert not gives or "Returns:" in text, f"{name}: say what it returns"


def test_every_name_has_words() -> None:
    for name, offered in LIBRARY.items():
        text = (offered.__doc__ or "").strip()
        assert text, name
        assert not text.startswith(f"{name}("), f"{name}: a dataclass's own signature says nothing"


@pytest.mark.parametrize("offered", DATACLASSES, ids=lambda offered: offered.__name__)
def test_every_field_has_words(offered: type) -> None:
    """Each field has a comment, or a documented type if that is an enum or a configuration."""
    told, hints = descriptions(offered), typing.get_type_hints(offered)
    explained = [name for name, hint in hints.items() if inspect.isclass(hint) and hint in LIBRARY.values()]
    fields = [field.name for field in dataclasses.fields(offered)]
    assert [name for name in fields if name not in explained and len(told.get(name, "")) < 2] == []


def choices() -> list[tuple[type, str, type[enum.StrEnum]]]:
    """Every option of every public configuration: (configuration, field, enum)."""
    found = []
    for config in CONFIGS:
        hints = typing.get_type_hints(config)
        found += [
            (config, field.name, hints[field.name])
            for field in dataclasses.fields(config)
            if inspect.isclass(hints[field.name]) and issubclass(hints[field.name], enum.StrEnum)
        ]
    return found


@pytest.mark.parametrize(("config", "field", "kind"), choices(), ids=lambda value: getattr(value, "__name__", value))
def test_options_are_public_and_take_strings(config: type, field: str, kind: type[enum.StrEnum]) -> None:
    needed = {"target_return": 1.0, "capacity": 1} if config is LIBRARY["ActingConfig"] else {}
    assert LIBRARY[kind.__name__] is kind
    for member in kind:
        assert getattr(config(**needed, **{field: str(member.value)}), field) is member
    with pytest.raises(RingRLError, match="choose"):
        config(**needed, **{field: "nonsense"})
