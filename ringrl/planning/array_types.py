"""Types as compiled programs write them, with the bytes that arrays take on a device."""

import functools
import math
import re
from typing import NamedTuple

_LEAF = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\](?:\{([\d,]*)((?::[^}]*)?)\})?")
_TILE, _SPACE = re.compile(r"T\(([\d,]+)\)"), re.compile(r"S\((\d+)\)")
_HOST = 5  # the number of the host's memory in a layout


class Leaf(NamedTuple):
    """An array: its type without the layout, and its bytes in the device's main memory, 0 where it lies elsewhere."""

    shape: str
    bytes: int


@functools.lru_cache(maxsize=4096)
def leaves(result: str, tiled: bool) -> tuple[Leaf, ...]:
    """All arrays of a type, tuples laid flat; `tiled` layouts, a TPU's, number small memories of a core too."""
    return tuple(_leaf(found, tiled) for found in _LEAF.finditer(result))


@functools.lru_cache(maxsize=4096)
def element(result: str, index: int) -> tuple[int, int]:
    """From which to before which array the element of a tuple's type reaches, tuples laid flat."""
    depth, elements, counts = 0, 0, [0]
    place = 0
    while place < len(result):
        found = _LEAF.match(result, place)
        if found:
            counts[-1] += 1
            place = found.end()
            continue
        depth += {"(": 1, ")": -1}.get(result[place], 0)
        if result[place] == "," and depth == 1:
            elements += 1
            counts.append(0)
        place += 1
    before = sum(counts[:index])
    return before, before + counts[index]


def _leaf(found: re.Match[str], tiled: bool) -> Leaf:
    _, bits, sizes, order, extra = found.groups()
    name = f"{found.group(0).partition('[')[0]}[{sizes}]"
    space = _SPACE.search(extra or "")
    if space and (tiled or int(space.group(1)) == _HOST):
        return Leaf(name, 0)
    shape = [int(size) for size in sizes.split(",") if size]
    tile = _TILE.search(extra or "")
    if tile and shape:
        shape = [shape[int(dimension)] for dimension in order.split(",")]  # the fastest first, as the tile has it last
        for place, size in enumerate(reversed(tile.group(1).split(","))):
            if place < len(shape):
                shape[place] += -shape[place] % int(size)
    return Leaf(name, math.prod(shape) * max(int(bits or 8), 8) // 8)
