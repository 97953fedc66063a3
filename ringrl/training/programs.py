"""A cache of whole compiled programs, so that a later start of the same run neither traces nor compiles them.

JAX's own cache stores the compiler's output, and is looked up after a program has been traced and lowered, which for a
training step takes seconds. A program stored here is keyed by all inputs of tracing: the agent's definition, shapes and
shardings of the arguments, versions, sources, devices and JAX's settings.
"""

import contextlib
import dataclasses
import enum
import functools
import hashlib
import importlib.metadata
import logging
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import serialize_executable

import ringrl
from ringrl.ops.notes import log_once, record_notes

TRACED_WITH = ("jax", "jaxlib", "flax", "optax", "numpy")
SOURCES = ("agents", "nn", "ops", "parallel", "training")  # and the files beside them: all code that tracing runs
COMPILER_FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
_logger = logging.getLogger(__name__)


class ProgramStore(Protocol):
    """Storage of programs, including those of JAX's own cache."""

    def get(self, key: str) -> bytes | None:
        """The program stored under that key, or None."""
        ...

    def put(self, key: str, value: bytes) -> None:
        """Store a program."""
        ...

    def compile_afresh(self) -> contextlib.AbstractContextManager[None]:
        """Context in which JAX loads no stored program: the CPU backend cannot fully serialize a loaded one."""
        ...


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled programs of one definition.

    Attributes:
        store: storage of the programs. It must be writable by this user alone: a stored program is code.
        definition: everything that the traced functions read besides their arguments: (nested) dataclasses, mappings,
            sequences, enums, numpy arrays, numbers and strings.
    """

    store: ProgramStore
    definition: Any

    def load_or_compile(
        self, name: str, arguments: tuple[Any, ...], devices: Sequence[Any], compile_it: Callable[[], Any]
    ) -> Any:
        """The compiled program `name` for arguments like these: the stored one, or the result of `compile_it()`.

        `devices` are those that it runs on, in the order of its mesh.

        Messages logged during tracing (`ringrl.ops.notes`) are stored with it and logged again. A program that cannot
        be stored or loaded is compiled.
        """
        key = self._key(name, arguments, devices)
        stored = self.store.get(key)
        if stored is not None:
            try:
                notes, *parts = pickle.loads(stored)
                loaded = serialize_executable.deserialize_and_load(*parts, execution_devices=devices)
            except Exception as error:  # made differently than its key implies: any error of JAX's, or of pickle's
                _logger.debug("the program %s is compiled anew: %s", name, error)
            else:
                for line in notes:
                    log_once(line)
                return loaded
        with record_notes() as notes, self.store.compile_afresh():
            compiled = compile_it()
        try:
            self.store.put(key, pickle.dumps((list(notes), *serialize_executable.serialize(compiled))))
        except Exception as error:  # a platform without serialization
            _logger.debug("the program %s is not kept: %s", name, error)
        return compiled

    def _key(self, name: str, arguments: tuple[Any, ...], devices: Sequence[Any]) -> str:
        leaves, structure = jax.tree.flatten(arguments)
        shapes = [(str(jax.typeof(leaf)), str(getattr(leaf, "sharding", None))) for leaf in leaves]
        places = [str(device) for device in devices]
        told = [name, _plain(self.definition), str(structure), shapes, places, _surroundings()]
        return f"{name}-{hashlib.sha256(repr(told).encode()).hexdigest()}"


def compile_function(
    function: Any,
    name: str,
    arguments: tuple[Any, ...],
    programs: Programs | None,
    mesh: jax.sharding.Mesh | None = None,
) -> Any:
    """Compile a jitted function for arguments like these, or load it from `programs`.

    Without a mesh it runs where the first of the arguments lies.
    """

    def compile_it() -> Any:
        return function.lower(*arguments).compile()

    if programs is None:
        return compile_it()
    devices = list(jax.tree.leaves(arguments)[0].devices() if mesh is None else mesh.devices.flat)
    return programs.load_or_compile(name, arguments, devices, compile_it)


def find_sources() -> list[Path]:
    """The files of this package whose functions run when an agent's programs are traced."""
    root = Path(ringrl.__file__).parent
    return sorted([*root.glob("*.py"), *(file for name in SOURCES for file in (root / name).rglob("*.py"))])


def _plain(value: Any) -> Any:
    """Convert a value to nested tuples with a complete `repr`; raises TypeError if that is impossible."""
    if isinstance(value, enum.Enum):
        return type(value).__qualname__, value.name
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return type(value).__qualname__, _plain(fields)
    if isinstance(value, Mapping):
        return tuple((key, _plain(item)) for key, item in sorted(value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    if isinstance(value, np.ndarray):
        return "array", str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    if value is None or isinstance(value, (str, int, float, bool, np.generic)):
        return repr(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a program's definition")


def _surroundings() -> tuple[Any, ...]:
    """Versions, sources, devices and settings, any of which may change what is traced or compiled."""
    devices = [(str(device), device.device_kind) for device in jax.devices()]
    versions = [(package, importlib.metadata.version(package)) for package in TRACED_WITH]
    # The cache's own settings do not affect programs.
    settings = sorted((key, repr(value)) for key, value in jax.config.values.items() if "cache" not in key)
    flags = [os.environ.get(variable) for variable in COMPILER_FLAGS]
    return devices, jax.devices()[0].client.platform_version, versions, settings, flags, _hash_sources()


@functools.cache
def _hash_sources() -> str:
    """A digest of the files that tracing runs, so that an edited checkout traces again."""
    digest = hashlib.sha256()
    for file in find_sources():
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
