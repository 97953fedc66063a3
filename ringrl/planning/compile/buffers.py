"""The largest temporaries of a compiled program, in RingRL's words."""

import collections

from ringrl.planning.hlo.liveness import Live, fullest
from ringrl.planning.hlo.parser import Module
from ringrl.planning.hlo.places import KEPT, holds
from ringrl.planning.plan import Buffer

LARGEST = 12


def largest_buffers(module: Module) -> tuple[Buffer, ...]:
    """Temporaries that lie in a device's memory at the fullest moment, alike ones joined, the most bytes first.

    `bytes` are those of one of `count` alike. Found from the program's text (`ringrl.planning.hlo.liveness`), since the
    compilers for TPUs and GPUs hand out no list of their own: their sum is near the reported temporaries, not equal.
    """
    return described(fullest(module))


def described(arrays: list[Live]) -> tuple[Buffer, ...]:
    """The largest of these, alike ones joined."""
    widest = max((_features(one) for one in arrays if holds(one.place, one.shape) == KEPT), default=0)
    inputs = sum(_features(one) == widest and holds(one.place, one.shape) == KEPT for one in arrays)
    joined: dict[tuple[str, str], list[Live]] = collections.defaultdict(list)
    for one in arrays:
        words = holds(one.place, one.shape)
        if words == KEPT and inputs == 1 and _features(one) == widest:
            words = "layer inputs kept for the backward pass"
        joined[one.shape, words].append(one)
    found = [Buffer(alike[0].bytes, shape, words, len(alike)) for (shape, words), alike in joined.items()]
    return tuple(sorted(found, key=lambda one: -one.bytes * one.count)[:LARGEST])


def _features(one: Live) -> int:
    """The last size of [layers, chains, tokens, features], 0 for what has other axes."""
    sizes = one.shape.partition("[")[2].rstrip("]").split(",")
    return int(sizes[-1]) if len(sizes) == 4 else 0
