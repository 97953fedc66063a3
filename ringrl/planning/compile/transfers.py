"""Communication between devices in a training step, and whether the schedule overlaps it with matrix products."""

import collections
from collections.abc import Iterable

from ringrl.planning.hlo.collectives import Collective, find_collectives
from ringrl.planning.hlo.overlap import ScheduledCollective, find_scheduled_collectives
from ringrl.planning.hlo.parser import ArrayType, Module
from ringrl.planning.hlo.places import GOING_HOME, describe_transfer
from ringrl.planning.plan import Transfer

_UNCOUNTED = " (in a loop that does not say how often it runs: counted once)"


def find_transfers(module: Module) -> tuple[Transfer, ...]:
    """Every collective of a compiled program, equal ones merged, ordered by decreasing bytes.

    Collectives are merged if they have the same kind, origin and position in the schedule: `times` counts all
    executions in one step, including loops, and `across` holds for each of them. Each branch of a conditional counts as
    taken. Bytes are those of `ringrl.planning.hlo.collectives`. Raises RingRLError for a program that is not compiled
    or not scheduled.
    """
    schedule: dict[str, ScheduledCollective] = {
        flight.wrapped or flight.name: flight for flight in find_scheduled_collectives(module)
    }
    joined: dict[tuple[str, str, bool], list[Collective]] = collections.defaultdict(list)
    for one in find_collectives(module, uncounted=True):
        floats = sum(not array.dtype.startswith(("s", "u", "pred")) for array in one.operands)
        scope = one.scope or schedule[one.name].operation  # only a general start may have its origin
        source = describe_transfer(one.kind, scope, one.loop, floats) + ("" if one.counted else _UNCOUNTED)
        joined[one.kind, source, not schedule[one.name].exposed].append(one)
    found = (
        Transfer(
            kind=str(kind),
            source=source,
            shapes=_shapes(alike),
            times=sum(one.times for one in alike),
            bytes=sum(one.bytes_sent for one in alike),
            across=across,
            due=not source.startswith(GOING_HOME),
        )
        for (kind, source, across), alike in joined.items()
    )
    return tuple(sorted(found, key=lambda transfer: -transfer.bytes))


def _shapes(alike: Iterable[Collective]) -> tuple[str, ...]:
    """Shapes of whole arrays: the output of an all-gather, the input of a reduce-scatter."""
    arrays = (max(pair, key=_bytes) for one in alike for pair in zip(one.operands, one.results, strict=True))
    return tuple(dict.fromkeys(str(array) for array in arrays))


def _bytes(array: ArrayType) -> int:
    return array.bytes
