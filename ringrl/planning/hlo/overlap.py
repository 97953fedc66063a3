"""Overlap of communication and computation, read from the text of a compiled, scheduled program.

A compiler that can overlap communication with computation splits a `collective-permute`, or another collective, into
`-start` and `-done`, and its schedule, which is the order of the lines, puts work between them. Only matrix products
count: the ring's block loop. Work in between may overlap; whether it hides the transfer cannot be read from the text.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence

from ringrl.errors import RingRLError
from ringrl.planning.hlo.parser import COLLECTIVES, Instruction, Module

_MATRIX_PRODUCTS = ("dot", "convolution", "ragged-dot")  # a TPU's programs use convolution for each
_MATRIX_LIBRARIES = re.compile(r"\w*cublas|\w*cudnn|\w*triton|tpu_custom_call|mosaic")


@dataclasses.dataclass(frozen=True)
class ScheduledCollective:
    """A collective, and the matrix products that the schedule puts between its start and its done."""

    name: str  # of the start instruction
    computation: str  # for example the body of a loop
    operation: str  # its origin in the program, as JAX names it
    shapes: tuple[str, ...]  # compilers may send several arrays at once
    synchronous: bool  # nothing else runs at the same time
    across: tuple[str, ...]  # loops and other instructions with matrix products, in order
    kind: str = COLLECTIVES[0]
    wrapped: str = ""  # the name of the collective itself, if a general start wraps it

    @property
    def exposed(self) -> bool:
        """Whether it is scheduled across no matrix product."""
        return not self.across

    @property
    def backward(self) -> bool:
        """Whether it belongs to a gradient."""
        return "transpose(" in self.operation

    def __str__(self) -> str:
        where = f"{self.name} ({', '.join(self.shapes)}) in {self.computation}, from {self.operation}"
        if self.across:
            return f"{where}: across {', '.join(self.across)}"
        return f"{where}: {'synchronous' if self.synchronous else 'no matrix product between its start and its done'}"


Permute = ScheduledCollective  # the first kind


def find_permutes(module: Module) -> list[Permute]:
    """Every permute of a scheduled program, by computation, in the order of their starts.

    Raises RingRLError as `find_scheduled_collectives` does.
    """
    return [flight for flight in find_scheduled_collectives(module) if flight.kind == COLLECTIVES[0]]


def find_scheduled_collectives(module: Module) -> list[ScheduledCollective]:
    """Every collective of a scheduled program, by computation, in the order of their starts.

    Raises RingRLError for a program that is not scheduled, whose order of lines has no meaning, and for a collective
    whose done is in another computation than its start.
    """
    if not module.scheduled:
        raise RingRLError("This program has no schedule: give the text of a compiled one, `compiled.as_text()`.")
    heavy = _with_matrix_products(module)
    wrapped = {
        called: inner
        for steps in module.computations.values()
        for step in steps
        if step.opcode == "async-start"
        for called in step.called
        for inner in module.computations[called]
        if inner.opcode in COLLECTIVES
    }
    return [
        flight
        for name, steps in module.computations.items()
        if name not in wrapped  # wrapped collectives are counted at their start
        for flight in _find_scheduled(name, steps, heavy, wrapped)
    ]


def _with_matrix_products(module: Module) -> set[str]:
    """Computations that contain a matrix product, or call one that does; they are defined before their use."""
    heavy: set[str] = set()
    for name, steps in module.computations.items():
        if any(_is_heavy(step, heavy) for step in steps):
            heavy.add(name)
    return heavy


def _is_heavy(step: Instruction, heavy: set[str]) -> bool:
    return (
        step.opcode in _MATRIX_PRODUCTS
        or any(called in heavy for called in step.called)
        or _MATRIX_LIBRARIES.match(step.library) is not None
    )


def _find_scheduled(
    computation: str, steps: Sequence[Instruction], heavy: set[str], wrapped: dict[str, Instruction]
) -> Iterator[ScheduledCollective]:
    work = [(place, step.name) for place, step in enumerate(steps) if _is_heavy(step, heavy)]
    done_at: dict[str, int] = {}
    for place in reversed(range(len(steps))):  # updates, between start and done, count as their done
        step = steps[place]
        if _is_done(step):
            done_at |= dict.fromkeys(step.operands, place)
        elif step.opcode.endswith("-update") and step.name in done_at:
            done_at |= dict.fromkeys(step.operands, done_at[step.name])
    for place, step in enumerate(steps):
        inner = next((wrapped[called] for called in step.called if called in wrapped), None)
        inner = inner if step.opcode == "async-start" else None
        kind = (inner or step).collective
        if kind is None:
            continue
        started = inner is not None or step.opcode != kind
        synchronous = not started or step.is_synchronous
        done = done_at.get(step.name) if started else place
        if done is None:
            raise RingRLError(f"{step.name} starts in {computation} and is done elsewhere: no one order holds both.")
        yield ScheduledCollective(
            step.name,
            computation,
            step.scope or (inner.scope if inner else ""),
            _sent(step),
            synchronous,
            () if synchronous else tuple(name for at, name in work if place < at < done),
            kind,
            inner.name if inner else "",
        )


def _is_done(step: Instruction) -> bool:
    return step.opcode == "async-done" or step.opcode.removesuffix("-done") in COLLECTIVES


def _sent(step: Instruction) -> tuple[str, ...]:
    """The transferred arrays: a result lists them first, then the destinations, then synchronization values."""
    return tuple(str(array) for array in step.type.arrays[: len(step.operands)])
