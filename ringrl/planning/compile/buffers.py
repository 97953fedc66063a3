"""The largest temporaries of a compiled program, described in RingRL's terms."""

import collections

from ringrl.planning.hlo.liveness import LiveArray, find_peak
from ringrl.planning.hlo.parser import Module
from ringrl.planning.hlo.places import KEPT, describe_array
from ringrl.planning.plan import Buffer

LARGEST = 12


def largest_buffers(module: Module) -> tuple[Buffer, ...]:
    """Temporaries in a device's memory at its peak, equal ones merged, ordered by decreasing bytes.

    `bytes` is the size of one of `count` equal ones. They are found from the program's text
    (`ringrl.planning.hlo.liveness`), because the compilers for TPUs and GPUs provide no list: their sum is close to the
    reported temporaries, not equal.
    """
    return describe_largest(find_peak(module))


def describe_largest(arrays: list[LiveArray]) -> tuple[Buffer, ...]:
    """Describe the largest of these, equal ones merged."""
    widest = max((_features(one) for one in arrays if describe_array(one.place, one.shape) == KEPT), default=0)
    inputs = sum(_features(one) == widest and describe_array(one.place, one.shape) == KEPT for one in arrays)
    joined: dict[tuple[str, str], list[LiveArray]] = collections.defaultdict(list)
    for one in arrays:
        words = describe_array(one.place, one.shape)
        if words == KEPT and inputs == 1 and _features(one) == widest:
            words = "layer inputs kept for the backward pass"
        joined[one.shape, words].append(one)
    found = [Buffer(alike[0].bytes, shape, words, len(alike)) for (shape, words), alike in joined.items()]
    return tuple(sorted(found, key=lambda one: -one.bytes * one.count)[:LARGEST])


def _features(one: LiveArray) -> int:
    """The last size of [layers, chains, tokens, features], 0 for other axes."""
    sizes = one.shape.partition("[")[2].rstrip("]").split(",")
    return int(sizes[-1]) if len(sizes) == 4 else 0
