"""The order in which a ring traverses the chips of a torus: from neighbor to neighbor, and back to the first.

JAX lays an axis of a mesh over a TPU's chips row by row, and jumps from the end of a row to the start of the next. All
hops of a ring begin together, so it is as slow as that jump; and where links do not wrap around (a v5e slice), the
compiler lowers such a hop to a synchronous instruction.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Place = tuple[int, ...]


def order_ring(devices: np.ndarray, axis: int) -> np.ndarray:
    """Reorder a mesh's devices along `axis`, which is a ring, so that each of its hops is a link.

    The order is unchanged if the hardware reports no coordinates, if every hop is a link already, and if no such order
    is known: along a single line, whether it wraps around or not, and where the devices of a ring do not form a box of
    one slice.
    """
    rings = np.moveaxis(devices, axis, -1)
    order = _order([_find_coordinates(device) for device in rings[(0,) * (devices.ndim - 1)]])
    return devices if order is None else np.take(devices, order, axis)


def _order(places: list[Place | None]) -> list[int] | None:
    """The order of the devices along the ring; None if it should not change."""
    known = [place for place in places if place is not None]
    if len(known) < len(places) or len(places) < 3 or _is_closed(known):
        return None
    low, high = (tuple(extreme(column) for column in zip(*known, strict=True)) for extreme in (min, max))
    index = {place: number for number, place in enumerate(known)}
    sizes = tuple(top - bottom + 1 for bottom, top in zip(low, high, strict=True))
    way = find_closed_walk(sizes)
    if way is None or len(index) != len(known) or math.prod(sizes) != len(known):
        return None
    return [index[tuple(bottom + step for bottom, step in zip(low, place, strict=True))] for place in way]


def find_closed_walk(sizes: Sequence[int]) -> list[Place] | None:
    """A closed walk through a box: each place once, each a neighbor of the one before, the last of the first.

    None for a line, and if all sizes are odd, because then no such walk exists.
    """
    even = next((axis for axis, size in enumerate(sizes) if size % 2 == 0), None)
    if even is None or sum(size > 1 for size in sizes) < 2:
        return None
    rest = [axis for axis in range(len(sizes)) if axis != even]
    line = _find_open_walk([sizes[axis] for axis in rest])

    def place(row: int, column: int) -> Place:
        found = dict(zip(rest, line[column], strict=True)) | {even: row}
        return tuple(found[axis] for axis in range(len(sizes)))

    # Back and forth through all columns but the first, which is the way back.
    rows, columns = sizes[even], len(line)
    there = [(row, column) for row in range(rows) for column in _turning(range(1, columns), row)]
    return [place(*at) for at in [*there, *((row, 0) for row in reversed(range(rows)))]]


def _find_open_walk(sizes: Sequence[int]) -> list[Place]:
    """A walk through a box: each place once, each a neighbor of the one before."""
    if not sizes:
        return [()]
    line = _find_open_walk(sizes[1:])
    return [(row, *place) for row in range(sizes[0]) for place in _turning(line, row)]


def _turning(line: Sequence[Any], row: int) -> Sequence[Any]:
    return line if row % 2 == 0 else line[::-1]


def _find_coordinates(device: Any) -> Place | None:
    """Coordinates of a TPU device: its chip in the torus, and its core in the chip."""
    coordinates = getattr(device, "coords", None)
    if coordinates is None:
        return None
    return (*coordinates, getattr(device, "core_on_chip", 0) or 0)


def _is_closed(places: list[Place]) -> bool:
    """Whether each hop, including the last to the first, is between neighbors."""
    pairs = zip(places, [*places[1:], places[0]], strict=True)
    return all(sum(abs(a - b) for a, b in zip(one, other, strict=True)) == 1 for one, other in pairs)
