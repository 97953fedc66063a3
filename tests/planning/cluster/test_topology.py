"""Names of absent devices: unknown names, missing compilers, and their meshes."""

import jax
import pytest

from ringrl.errors import RingRLError
from ringrl.planning.cluster import topology
from ringrl.planning.compile.attention import Program
from ringrl.planning.compile.schedules import Request, schedule


@pytest.mark.parametrize(
    "name", ["", "h100", "cpu", "v4", "v4:", "v4:2x", "v4:2x2x2x2", "v4 2x2x2", "b300:8", "h100:0"]
)
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(RingRLError, match="Unknown topology"):
        topology.topology_devices(name)


@pytest.mark.parametrize("name", ["v4:2x2x2", "tpu7x:2x2x1", "h100:8", "a100:4x8"])
def test_a_missing_compiler_says_how_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RingRLError, match=r"pip install .*--target"):
        topology.topology_devices(name)


def test_cpu_devices_are_those_of_this_process() -> None:
    assert topology.topology_devices("cpu:3") == jax.devices()[:3]
    mesh = topology.topology_mesh("cpu:8", fsdp=2)
    assert mesh.devices.shape == (1, 2, 4, 1)
    assert {device.platform for device in mesh.devices.flat} == {"cpu"}


def test_too_few_cpu_devices_are_said_how_to_get() -> None:
    with pytest.raises(RingRLError, match="JAX_NUM_CPU_DEVICES=16"):
        topology.topology_devices("cpu:16")


@pytest.mark.parametrize(
    ("name", "sizes", "expected"),
    [
        ("v4:2x2x2", {}, (1, 1, 8, 1)),
        ("v4:2x2x2", {"data": 2, "head": 2}, (2, 1, 2, 2)),
        ("v4:2x2x2", {"ring": 4, "fsdp": 2}, (1, 2, 4, 1)),
        ("v4:2x2x2", {"ring": 4}, None),
        ("v4:2x2x2", {"head": 3}, None),
        ("v4:2x2x2", {"head": 16}, None),
    ],
)
def test_a_mesh_takes_every_device(
    name: str, sizes: dict[str, int], expected: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "topology_devices", lambda name: jax.devices())  # eight, of a CPU
    if expected is None:
        with pytest.raises(RingRLError, match="has 8 devices"):
            topology.topology_mesh(name, **sizes)
    else:
        assert topology.topology_mesh(name, **sizes).devices.shape == expected


@pytest.mark.aot
def test_what_a_compiler_does_not_know_is_refused() -> None:
    with pytest.raises(RingRLError, match="Unknown topology"):
        schedule(Request("v4:3x3x3"))


@pytest.mark.aot
@pytest.mark.parametrize(
    ("target", "devices"), [("v4-core:2x2x1", 8), ("tpu7x:2x2x1", 8), ("a100:2x8", 16), ("h200:1", 1), ("b200:8", 8)]
)
def test_devices_of_a_topology(target: str, devices: int) -> None:
    assert schedule(Request(target, Program.forward)).devices == devices
