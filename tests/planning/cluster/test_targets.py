"""Names of clusters, their numbers of devices, and default specifications."""

from pathlib import Path

import pytest
import yaml

from ringrl.errors import RingRLError
from ringrl.planning.cluster import targets
from ringrl.planning.cluster.targets import DEVICE_KINDS, GIB, Target, fill_specification, read_topology

CONF = sorted((Path(__file__).parents[3] / "conf" / "target").glob("*.yaml"))


@pytest.mark.parametrize(
    ("topology", "devices", "platform"),
    [
        ("v4:8x8x8", 512, "tpu"),
        ("v4-core:8x8x8", 1024, "tpu"),
        ("v3:16x16", 512, "tpu"),
        ("v2:2x2", 8, "tpu"),
        ("v5e:16x16", 256, "tpu"),
        ("tpu7x:2x2x1", 8, "tpu"),
        ("a100:8", 8, "cuda"),
        ("a100:4x8", 32, "cuda"),
        ("h100:2x4x8", 64, "cuda"),
        ("cpu:8", 8, "cpu"),
    ],
)
def test_devices_are_counted_from_the_name(topology: str, devices: int, platform: str) -> None:
    target = Target(topology=topology)
    assert (target.devices, target.platform) == (devices, platform)


@pytest.mark.parametrize(
    ("topology", "says"),
    [
        ("b300:8", "b200:8"),
        ("V4:2x2x2", "v4:2x2x2"),
        ("tpu7:2x2x1", "tpu7x:2x2x1"),
        ("", "v4:2x2x2"),
        ("v4", "v4:2x2x2"),
        ("v4:2x2", "chips along each axis"),
        ("v5e:4x4x4", "chips along each axis"),
        ("h100:0", "machines x GPUs"),
        ("cpu:2x4", "cpu:8"),
        ("v4:2x2x2\n", "v4:2x2x2"),
    ],
)
def test_what_is_no_topology_is_told_the_nearest(topology: str, says: str) -> None:
    with pytest.raises(RingRLError, match="Unknown topology") as caught:
        read_topology(topology)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", DEVICE_KINDS)
def test_every_kind_settles_by_its_example(kind: str) -> None:
    known = DEVICE_KINDS[kind]
    assert read_topology(known.example).kind == kind
    settled = fill_specification(Target(topology=known.example))
    assert settled.memory > 0
    assert settled.source
    assert settled.name == known.example
    if known.platform != "cpu":
        assert settled.memory <= 1.01 * known.device_memory
        assert settled.peak_flops > 0
        assert 0 < known.link_bandwidth <= settled.bandwidth


def test_half_a_chip_has_half_of_it() -> None:
    whole, half = DEVICE_KINDS["v4"], DEVICE_KINDS["v4-core"]
    for figure in ("peak_flops", "bandwidth", "link_bandwidth", "device_memory"):
        assert getattr(whole, figure) == 2 * getattr(half, figure)


def test_given_figures_stand() -> None:
    given = Target("mine", "a100:8", memory=40 * GIB, peak_flops=1e14, bandwidth=1e9, source="measured")
    assert fill_specification(given) == given


def test_between_machines_the_network_is_the_bandwidth() -> None:
    assert fill_specification(Target(topology="a100:1x8")).bandwidth == 300e9
    assert fill_specification(Target(topology="a100:4x8")).bandwidth == 12.5e9
    assert fill_specification(Target(topology="a100:4x8", bandwidth=25e9)).bandwidth == 25e9


def test_cpu_devices_share_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_machine_memory", lambda: 32 * GIB)
    assert fill_specification(Target(topology="cpu:8")).memory == 4 * GIB


@pytest.mark.parametrize("figure", ["memory", "peak_flops", "bandwidth"])
def test_negative_figures_are_refused(figure: str) -> None:
    with pytest.raises(RingRLError, match=f"target.{figure}"):
        fill_specification(Target(topology="h100:8", **{figure: -1}))


def test_a_target_needs_a_topology() -> None:
    with pytest.raises(RingRLError, match=r"target\.topology is empty"):
        fill_specification(Target())


@pytest.mark.parametrize("path", CONF, ids=lambda path: path.stem)
def test_every_named_cluster_is_one(path: Path) -> None:
    text = path.read_text()
    target = Target(**yaml.safe_load(text))
    assert text.startswith("# ")
    if path.stem == "custom":
        assert target == Target()
    else:
        assert target.name == path.stem
        assert fill_specification(target).peak_flops > 0
        count = int(path.stem.rpartition("_")[2].rpartition("x")[2])  # a100x8, tpu_v5e_256
        cores = 2 if path.stem == "tpu_v4_1024" else 1
        assert target.devices * cores == count
