"""The contents of a device's memory at the peak of a compiled program, estimated from the order of its lines.

Compilers for TPUs and GPUs do not report their buffers, so this simulates the scheduled text: a buffer is live from the
line that writes it to the last line that reads it; the buffer of a loop's carry is free between the last line of the
body that reads it and the line that rewrites it. Fragmentation, and reuse based on the compilers' knowledge of their
kernels, are not modeled: the totals are close to theirs, not equal.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

from ringrl.planning.hlo.parser import Instruction, Module

_ALIASES = ("tuple", "bitcast", "opt-barrier", "domain", "add-dependency")
_OWN_RESULT = ("convolution", "dot", "copy", "transpose", "custom-call", "concatenate", "conditional")  # never shared
_ALWAYS_THERE = ("parameter", "constant")


@dataclasses.dataclass(eq=False)
class Allocation:
    """Memory for one array, or for several in succession, within one computation."""

    shape: str
    bytes: int  # in the device's main memory, 0 if it is elsewhere
    step: Instruction  # the instruction that writes it
    first: int
    last: int
    owned: bool = True  # False if allocated by the caller, and for a program's arguments and results
    carried: int | None = None  # index in a loop's carry, at the start of the body
    writer: Instruction | None = None  # the instruction in a loop's body that rewrites the carry


@dataclasses.dataclass(frozen=True)
class LiveArray:
    """A live array at the peak."""

    shape: str
    bytes: int
    place: str  # origin as JAX names it; of a loop's carry, that of its writer


@dataclasses.dataclass(frozen=True)
class _Computation:
    """A computation with its allocations; `carries` are the input arrays of each of its loops."""

    steps: Sequence[Instruction]
    allocations: list[Allocation]
    carries: dict[str, list[Allocation]]


def find_peak(module: Module) -> list[LiveArray]:
    """All arrays that are live at the peak of a scheduled program, except arguments and results."""

    @functools.cache
    def peak(name: str, owned: tuple[bool, ...]) -> tuple[int, tuple[Allocation, ...]]:
        return _find_peak_of(_read(module, name, owned), peak)

    found = peak(module.entry, ())[1]
    lines = {step.name: step for steps in module.computations.values() for step in steps}
    places = (_find_origin(one.writer, module, lines) or _find_origin(one.step, module, lines) for one in found)
    return [LiveArray(one.shape, one.bytes, place) for one, place in zip(found, places, strict=True)]


def _find_peak_of(body: _Computation, peak: Callable) -> tuple[int, tuple[Allocation, ...]]:
    """Bytes at the peak, including those of called computations, and the live arrays."""
    change = [0] * (len(body.steps) + 1)
    for one in body.allocations:
        change[one.first] += one.bytes * one.owned
        change[one.last + 1] -= one.bytes * one.owned
    most, at, inside, now = -1, 0, (), 0
    for place, step in enumerate(body.steps):
        now += change[place]
        carry = body.carries.get(step.name, [])
        outside = now - sum(one.bytes for one in set(carry) if one.owned)  # counted by the body
        called = step.called if step.opcode in ("while", "conditional", "call") else ()
        found = (peak(name, tuple(one.owned for one in carry)) for name in called)
        within, arrays = max(found, key=lambda one: one[0], default=(0, ()))
        if outside + within > most:
            most, at = outside + within, place
            inside = tuple(one if one.carried is None else carry[one.carried] for one in arrays)
    carry = set(body.carries.get(body.steps[at].name, [])) if body.steps else ()
    here = (one for one in body.allocations if one.owned and one.first <= at <= one.last and one not in carry)
    return max(most, 0), (*(one for one in here if one.bytes), *inside)


def _read(module: Module, name: str, owned: tuple[bool, ...]) -> _Computation:
    """Allocations of a computation; `owned` tells which of a loop's carried arrays are temporaries."""
    steps = module.body(name)
    last_read = {operand: place for place, step in enumerate(steps) for operand in step.operands}
    types = {step.name: step.type for step in steps}
    values: dict[str, list[Allocation]] = {}
    made: list[Allocation] = []
    carries: dict[str, list[Allocation]] = {}
    for place, step in enumerate(steps):
        read = [(name, one) for name in step.operands for one in values.get(name, [])]
        for _, one in read:
            one.last = place
        arrays = [one for _, one in read]
        fresh = [
            Allocation(str(array), array.allocated_bytes(module.tiled), step, place, place)
            for array in step.type.arrays
        ]
        match step.opcode:
            case "parameter" | "constant":
                for index, one in enumerate(fresh):
                    one.owned = step.opcode == "parameter" and index < len(owned) and owned[index]
                    one.carried = index if owned else None
                value = fresh
            case "get-tuple-element":
                value = arrays[types[step.operands[0]].element(step.index or 0)]
            case "while":
                carries[step.name] = value = arrays
                for one, writer in zip(arrays, _find_writers(module, step), strict=False):
                    one.writer = writer or one.writer
            case "copy-done":
                value = arrays[:1]
            case opcode if opcode in _ALIASES or opcode.endswith(("-done", "-update")):
                value = _find_referenced(arrays, fresh)
            case "copy-start":
                value = [fresh[0], *arrays[:1], *fresh[2:]]
            case opcode if opcode.endswith("-start") and opcode != "all-reduce-start":  # operands come first
                value = [*arrays[: len(fresh)], *fresh[len(arrays) :]]
            case _:
                dying = [one for name, one in read if last_read[name] == place and step.opcode not in _OWN_RESULT]
                value = [_reuse_or_allocate(one, dying) for one in fresh]
        values[step.name] = value
        made += [one for one in value if one.step is step]
    carried = {one.carried: one for one in made if one.carried is not None}
    for index, one in enumerate(values[steps[-1].name] if steps else []):
        one.owned, one.last = index < len(owned) and owned[index], len(steps) - 1
        before = carried.get(index, one)
        if before is not one:  # they share a buffer: the compiler ensures that they do not conflict
            one.first = min(max(one.first, before.last + 1), one.last)
    return _Computation(steps, made, carries)


def _reuse_or_allocate(new: Allocation, dying: list[Allocation]) -> Allocation:
    """Reuse the memory of an array of the same type that is read here for the last time, or allocate new memory."""
    for index, old in enumerate(dying):
        if (old.shape, old.bytes) == (new.shape, new.bytes) and old.owned:
            return dying.pop(index)
    return new


def _find_referenced(arrays: list[Allocation], fresh: list[Allocation]) -> list[Allocation]:
    """The arrays that a result refers to: of those in a start, the last of each shape."""
    if len(arrays) == len(fresh):
        return arrays
    left, found = list(arrays), []
    for new in fresh:
        index = next((at for at in reversed(range(len(left))) if left[at].shape == new.shape), None)
        found.append(new if index is None else left.pop(index))
    return found


def _find_writers(module: Module, loop: Instruction) -> Iterable[Instruction | None]:
    """The instruction that rewrites each array of a loop's carry, possibly in an inner loop; None if unchanged."""
    body = next((steps for name in loop.called if (steps := module.body(name))), ())
    known = {step.name: step for step in body}
    for name in body[-1].operands if body else ():
        step = known.get(name)
        while step is not None and step.opcode in (*_ALIASES[1:], "copy", "get-tuple-element"):
            at, step = step.index, known.get(step.operands[0])
            if at is not None and step is not None and step.opcode == "while":
                inner = list(_find_writers(module, step))
                step = (inner[at] if at < len(inner) else None) or step
                break
        yield None if step is None or step.opcode in _ALWAYS_THERE else step


def _find_origin(step: Instruction | None, module: Module, lines: dict[str, Instruction]) -> str:
    """The origin of an instruction, else that of the last instruction inside that has one, else that of its operand."""
    while step is not None:
        inside = (line.scope for name in step.called for line in reversed(module.body(name)))
        scope = step.scope or next(filter(None, inside), "")
        if scope:
            return scope
        step = lines.get(step.operands[0]) if step.operands and step.opcode not in _ALWAYS_THERE else None
    return ""
