"""The order of a ring in a torus: every chip once and each hop a link, or else JAX's own order."""

import dataclasses
import itertools
import math

import jax
import numpy as np
import pytest

from ringrl.parallel import mesh
from ringrl.parallel.mesh import AXES, arrange_devices
from ringrl.parallel.neighbors import find_closed_walk, order_ring
from ringrl.planning.compile.schedules import Request, schedule

RING = AXES.index("ring")


@dataclasses.dataclass(frozen=True)
class Chip:
    """A device with the attributes that determine the order."""

    coords: tuple[int, ...]
    core_on_chip: int = 0
    slice_index: int = 0


def grid(*sizes: int, cores: int = 1) -> np.ndarray:
    """Chips of a slice, row by row."""
    chips = [Chip(place, core) for place in itertools.product(*map(range, sizes)) for core in range(cores)]
    found = np.empty(len(chips), object)
    found[:] = chips
    return found


def steps(places) -> set[int]:
    """Number of links that each hop crosses, including the last to the first."""
    places = [(*chip.coords, chip.core_on_chip) for chip in places]
    pairs = zip(places, places[1:] + places[:1], strict=True)
    return {sum(abs(a - b) for a, b in zip(one, other, strict=True)) for one, other in pairs}


@pytest.mark.parametrize("sizes", list(itertools.product(range(1, 6), repeat=3)), ids=str)
def test_a_box_has_a_closed_walk_unless_it_is_a_line_or_odd(sizes: tuple[int, ...]) -> None:
    way = find_closed_walk(sizes)
    if math.prod(sizes) % 2 or sum(size > 1 for size in sizes) < 2:
        assert way is None
        return
    assert way is not None
    assert sorted(way) == sorted(itertools.product(*map(range, sizes)))
    assert steps([Chip(place) for place in way]) == {1}


@pytest.mark.parametrize(
    ("chips", "shape"),
    [
        (grid(8, 8, 1), (1, 1, 64, 1)),  # a slice of v5e
        (grid(4, 4, 8), (1, 1, 128, 1)),
        (grid(4, 4, 1, cores=2), (1, 1, 32, 1)),  # v3
        (grid(2, 4, 4), (1, 2, 16, 1)),  # two rings
        (grid(2, 2, 4, 4), (2, 2, 16, 1)),
    ],
    ids=lambda value: str(value) if isinstance(value, tuple) else "",
)
def test_each_hop_is_a_link(chips: np.ndarray, shape: tuple[int, ...]) -> None:
    laid = chips.reshape(shape)
    dealt = order_ring(laid, RING)
    assert dealt.shape == shape
    for before, after in zip(
        laid.reshape(-1, shape[2] * shape[3]), dealt.reshape(-1, shape[2] * shape[3]), strict=True
    ):
        assert set(before) == set(after)
        assert steps(after) == {1}


def test_of_a_hybrid_each_head_has_a_ring_of_its_own() -> None:
    laid = grid(2, 4, 4).reshape(1, 2, 16, 1).swapaxes(1, 3)
    assert steps(laid[0, 0, :, 0]) != {1}
    dealt = order_ring(laid, RING)
    for head in range(2):
        assert set(dealt[0, 0, :, head]) == set(laid[0, 0, :, head])
        assert steps(dealt[0, 0, :, head]) == {1}
    between = zip(dealt[0, 0, :, 0], dealt[0, 0, :, 1], strict=True)
    assert all(steps([one, other]) == {1} for one, other in between)  # where heads are exchanged, as JAX laid them


@pytest.mark.parametrize(
    "laid",
    [
        grid(16, 1, 1).reshape(1, 1, 16, 1),  # a line
        grid(3, 3, 1).reshape(1, 1, 9, 1),  # no closed walk
        grid(2, 1, 1).reshape(1, 1, 2, 1),
        grid(4, 4, 1)[:10].reshape(1, 1, 10, 1),  # no box
        grid(4, 4, 1).reshape(1, 16, 1, 1),  # no ring
        np.array([Chip((0, 0, 0))] * 8).reshape(1, 1, 8, 1),
        np.array([object() for _ in range(8)]).reshape(1, 1, 8, 1),  # a CPU or a GPU
    ],
    ids=["line", "odd", "pair", "part", "no ring", "one place", "no places"],
)
def test_what_has_no_such_way_stays_as_it_was(laid: np.ndarray) -> None:
    assert order_ring(laid, RING) is laid


def test_a_ring_of_neighbors_stays_as_it_was() -> None:
    once = order_ring(grid(4, 4, 1).reshape(1, 1, 16, 1), RING)
    assert order_ring(once, RING) is once


def test_two_slices_of_equal_coordinates_stay_as_they_were() -> None:
    two = [dataclasses.replace(chip, slice_index=index) for index in range(2) for chip in grid(4, 4, 1)]
    laid = np.array(two).reshape(1, 1, 32, 1)
    assert order_ring(laid, RING) is laid


@pytest.mark.aot
def test_on_a_slice_without_wraparound_transfers_travel_meanwhile() -> None:
    found = schedule(Request("v5e:8x8"))
    assert found.hops
    assert not [str(hop) for hop in found.hops if hop.exposed]


def test_jax_is_asked_again_where_a_torus_has_to_be_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuses(*arguments, **options):
        raise NotImplementedError("no whole axes")

    def split(sizes, devices, *, allow_split_physical_axes):
        asked.append(allow_split_physical_axes)
        return np.array(devices).reshape(sizes)

    monkeypatch.setattr(mesh.jax, "make_mesh", refuses)
    monkeypatch.setattr(mesh.mesh_utils, "create_device_mesh", split)
    found = arrange_devices((1, 1, 4, 2), jax.devices()[:8])
    assert asked == [True]
    assert dict(found.shape) == dict(zip(AXES, (1, 1, 4, 2), strict=True))
