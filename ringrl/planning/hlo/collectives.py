"""The collectives of a compiled program: how often each runs, and how many bytes it sends.

Bytes are those that one device sends in ring algorithms over the n devices of a group, the minimum of any algorithm:

- collective-permute: the array (an average over devices, where some send nothing);
- all-gather: (n - 1) times the device's own shard, so (n - 1) / n of the result;
- reduce-scatter and all-to-all: (n - 1) / n of the device's input;
- all-reduce: twice that, as a reduce-scatter and an all-gather.
"""

import dataclasses
import enum
import functools

from ringrl.errors import RingRLError
from ringrl.planning.hlo.parser import ArrayType, Instruction, Module


class Kind(enum.StrEnum):
    """Kinds of collectives, by compilers' names."""

    permute = "collective-permute"
    all_gather = "all-gather"
    reduce_scatter = "reduce-scatter"
    all_to_all = "all-to-all"
    all_reduce = "all-reduce"


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction, which may move several arrays."""

    name: str
    kind: Kind
    scope: str  # its origin in the program, as JAX names it
    operands: tuple[ArrayType, ...]
    results: tuple[ArrayType, ...]
    group: int  # number of participating devices; of a permute, all
    senders: float  # fraction of devices that send data, below 1 only for permutes
    times: int  # number of executions in one run of the program
    counted: bool = True  # False in a loop of unknown trip count, which counts as once
    loop: str = ""  # origin of the outermost loop around it with a single pass: passes may share its contents

    @property
    def bytes_sent(self) -> float:
        """Bytes sent by one device in one run of the program, over all `times`."""
        put_in = sum(array.bytes for array in self.operands)
        share = (self.group - 1) / self.group
        factor = {
            Kind.permute: self.senders,
            Kind.all_gather: self.group - 1,
            Kind.reduce_scatter: share,
            Kind.all_to_all: share,
            Kind.all_reduce: 2 * share,
        }[self.kind]
        return self.times * factor * put_in

    def __str__(self) -> str:
        arrays = ", ".join(map(str, self.results))
        return f"{self.times} x {self.kind} {self.name} of {arrays} among {self.group}, from {self.scope}"


def find_collectives(module: Module, *, uncounted: bool = False) -> list[Collective]:
    """Find every collective of a compiled program that is executed.

    Each branch of a conditional counts as taken. A loop of unknown trip count around collectives counts as once with
    `uncounted`; else RingRLError is raised.
    """

    @functools.cache
    def inside(name: str) -> tuple[Collective, ...]:
        steps = module.body(name)
        types = {step.name: step.type.arrays for step in steps}
        found: list[Collective] = []
        for step in steps:
            if step.collective is not None:
                found.append(_collective(step, Kind(step.collective), types, module.partitions))
            elif not step.opcode.endswith(("-done", "-update")):  # the called computations are counted at the start
                within = [one for called in step.called for one in inside(called)]
                times = module.trip_count(step) if step.opcode == "while" and within else 1
                if times is None and not uncounted:
                    raise RingRLError(
                        f"The loop {step.name} does not say how often it runs, so what it sends cannot be counted."
                    )
                place = step.scope if step.opcode == "while" else ""
                found += [
                    dataclasses.replace(
                        one,
                        times=one.times * (times or 1),
                        counted=one.counted and times is not None,
                        loop=place if "jvp(" in place else one.loop,
                    )
                    for one in within
                ]
        return tuple(found)

    return list(inside(module.entry))


def sum_bytes_sent(found: list[Collective]) -> dict[Kind, float]:
    """Sum the bytes sent by one device in one run of the program, by kind."""
    return {kind: sum((one.bytes_sent for one in found if one.kind is kind), 0.0) for kind in Kind}


def _collective(step: Instruction, kind: Kind, types: dict[str, tuple[ArrayType, ...]], devices: int) -> Collective:
    operands = tuple(array for name in step.operands for array in types[name])
    results = step.type.arrays
    if step.opcode.endswith("-start") and kind is not Kind.all_reduce:  # the operands come first
        results = results[len(operands) : 2 * len(operands)]
    senders = step.permuted / devices if kind is Kind.permute else 1.0
    return Collective(step.name, kind, step.scope, operands, results, step.group_size(devices), senders, 1)
