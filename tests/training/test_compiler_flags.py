"""Compiler flags: by device kind, unless the user has set them, and in the compilation of the step."""

import types

import jax
import numpy as np
import pytest

from ringrl.parallel import make_mesh
from ringrl.training import step as step_module
from ringrl.training.compiler_flags import compiler_flags, describe_flags

PERMUTES = "xla_enable_async_collective_permute"
LIMIT = "xla_gpu_experimental_parallel_collective_overlap_limit"
COMBINE = "xla_gpu_collective_permute_combine_threshold_bytes"
MEMORY = "xla_gpu_memory_limit_slop_factor"
SCHEDULER = "xla_gpu_enable_latency_hiding_scheduler"


def mesh_of(kind: str, devices: int = 8):
    device = types.SimpleNamespace(device_kind=kind)
    return types.SimpleNamespace(size=devices, devices=np.asarray([device] * devices, object))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("TPU v3", {PERMUTES}),
        ("TPU v4", set()),
        ("TPU v5 lite", set()),
        ("NVIDIA H100 80GB HBM3", {LIMIT, SCHEDULER, COMBINE, MEMORY}),
        ("Tesla V100-SXM2-32GB", {LIMIT, SCHEDULER, COMBINE, MEMORY}),
        ("AMD Instinct MI300X", set()),
        ("cpu", set()),
    ],
)
def test_flags_of_a_device_kind(kind: str, names: set[str]) -> None:
    assert set(compiler_flags(mesh_of(kind), {})) == names
    assert compiler_flags(mesh_of(kind, devices=1), {}) == {}, "one device sends nothing"
    assert compiler_flags(None, {}) == {}


@pytest.mark.parametrize("name", ["XLA_FLAGS", "LIBTPU_INIT_ARGS"])
def test_what_the_user_says_holds(name: str) -> None:
    said = {name: f"--xla_dump_to=/tmp/x  --{SCHEDULER}=false"}
    assert set(compiler_flags(mesh_of("NVIDIA H100"), said)) == {LIMIT, COMBINE, MEMORY}
    assert set(compiler_flags(mesh_of("TPU v3"), {name: f"--{PERMUTES}"})) == set()


def test_the_line_of_the_log() -> None:
    mesh = mesh_of("TPU v3", 512)
    line = describe_flags(mesh, compiler_flags(mesh, {}))
    assert line == f"compiler flags for 512 x TPU v3: {PERMUTES}=True"


def test_the_training_step_is_compiled_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(step_module, "compiler_flags", lambda mesh: asked.append(mesh) or {"no_such_flag": True})
    mesh = make_mesh(ring=2)
    agent = types.SimpleNamespace(mesh=mesh)
    given = {}
    monkeypatch.setattr(jax, "jit", lambda function, **options: given.update(options))
    monkeypatch.setattr(step_module, "state_shardings", lambda *_: None)
    step_module.make_train_step(agent, step_module.TrainingConfig())
    assert asked == [mesh]
    assert given["compiler_options"] == {"no_such_flag": True}
