"""Stored compiled programs: found without tracing, and only if all inputs of tracing are unchanged."""

import contextlib
import dataclasses
import logging
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ringrl
from ringrl.ops.notes import forget_notes, log_once
from ringrl.training.config import Precision, TrainingConfig
from ringrl.training.programs import Programs, compile_function, find_sources


class Store(dict):
    """A store in memory, in a process whose JAX keeps no programs."""

    def put(self, key, value):
        self[key] = value

    def compile_afresh(self):
        return contextlib.nullcontext()


@dataclasses.dataclass(frozen=True)
class Definition:
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    low: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2))
    names: tuple[str, ...] = ("a", "b")


@pytest.fixture
def traces():
    return []


@pytest.fixture
def double(traces):
    """A new jitted function at every call, which counts its traces."""

    def make():
        def function(tree):
            traces.append(1)
            log_once("doubled")
            return {"doubled": jax.tree.map(lambda leaf: 2 * leaf, tree)}

        return jax.jit(function)

    return make


def run(double, store, definition=Definition(), argument=None, name="double"):
    argument = {"x": jnp.arange(3)} if argument is None else argument
    compiled = compile_function(double(), name, (argument,), Programs(store, definition))
    return jax.device_get(compiled(argument)["doubled"])


def test_a_kept_program_is_not_traced_again_and_its_notes_are_logged(double, traces, caplog):
    store = Store()
    for _ in range(3):
        forget_notes()
        with caplog.at_level(logging.INFO):
            caplog.clear()
            np.testing.assert_array_equal(run(double, store)["x"], [0, 2, 4])
        assert [record.message for record in caplog.records if record.message == "doubled"] == ["doubled"]
    assert len(traces) == 1
    assert len(store) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"name": "another"},
        {"argument": {"x": jnp.arange(4)}},
        {"argument": {"x": jnp.arange(3.0)}},
        {"argument": {"y": jnp.arange(3)}},
        {"definition": Definition(TrainingConfig(precision=Precision.bfloat16))},
        {"definition": Definition(low=np.ones(2))},
        {"definition": Definition(names=("a", "c"))},
        {"definition": [Definition()]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_differs_is_another_program(double, traces, other):
    store = Store()
    run(double, store)
    run(double, store, **other)
    assert len(traces) == 2


def test_settings_devices_and_sources_are_part_of_the_key(double, traces, monkeypatch):
    store = Store()
    run(double, store)
    before = jax.config.jax_default_matmul_precision
    try:
        jax.config.update("jax_default_matmul_precision", "float32")
        run(double, store)
    finally:
        jax.config.update("jax_default_matmul_precision", before)
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_hlo_as_text=false")
    run(double, store)
    run(double, store, argument=jax.device_put({"x": jnp.arange(3)}, jax.devices()[1]))
    monkeypatch.setattr("ringrl.training.programs._hash_sources", lambda: "edited")
    run(double, store)
    assert len(traces) == 5


@pytest.mark.parametrize("damaged", [b"", b"not a pickle", b"\x80\x04]\x94."])
def test_a_program_that_cannot_be_loaded_is_compiled_and_replaced(double, traces, damaged):
    store = Store()
    run(double, store)
    (key,) = store
    store[key] = damaged
    np.testing.assert_array_equal(run(double, store)["x"], [0, 2, 4])
    run(double, store)
    assert len(traces) == 2


def test_a_program_of_a_mesh_is_loaded_on_its_devices(double, traces):
    store = Store()
    for traced, first in ((1, 3), (1, 3), (2, 4)):
        mesh = jax.make_mesh((4,), ("ring",), devices=jax.devices()[first : first + 4])
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("ring"))
        argument = {"x": jax.device_put(np.arange(8), sharding)}
        compiled = compile_function(double(), "double", (argument,), Programs(store, None), mesh)
        doubled = compiled(argument)["doubled"]["x"]
        assert doubled.sharding.is_equivalent_to(sharding, 1)
        np.testing.assert_array_equal(doubled, 2 * np.arange(8))
        assert len(traces) == traced


def test_what_cannot_be_told_is_no_definition(double):
    with pytest.raises(TypeError, match="object cannot be part of a program's definition"):
        run(double, Store(), definition={"x": object()})


def test_every_module_that_tracing_imports_is_hashed():
    script = "import ringrl.agents.making, ringrl.training.step, sys; print(*(m.__file__ for m in sys.modules.values()"
    script += " if m.__name__.split('.')[0] == 'ringrl'))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    imported = {Path(file) for file in done.stdout.split()}
    configs = {file for file in imported if file.name in ("config.py", "__init__.py")}  # data, or imports alone
    root = Path(ringrl.__file__).parent
    assert len(imported) > 50
    assert {str(file.relative_to(root)) for file in imported - configs - set(find_sources())} == set()
