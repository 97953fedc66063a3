"""What lies in a device's memory at the fullest moment of a compiled program, by the order of its lines.

Compilers for TPUs and GPUs do not tell which buffers they allot, so this goes through the scheduled text as they do: a
buffer lives from the line that makes it to the last line that reads it; what a loop carries lies in one place, free
between the last line of the body that reads it and the line that makes it anew. Gaps that compilers leave, and room
that they find by knowing their own kernels, are not known here: near their totals, not equal to them.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable

from ringrl.planning.array_types import Leaf, element, leaves
from ringrl.planning.overlap import Instruction, read_computations

_INDEX = re.compile(r"\bindex=(\d+)")
_PLACE = re.compile(r'op_name="([^"]*)"')
_ENTRY = re.compile(r"^ENTRY %([\w.-]+) ", re.MULTILINE)
_ALIASES = ("tuple", "bitcast", "opt-barrier", "domain", "add-dependency")
_OWN_RESULT = ("convolution", "dot", "copy", "transpose", "custom-call", "concatenate", "conditional")  # never in place
_ALWAYS_THERE = ("parameter", "constant")


@dataclasses.dataclass(eq=False)
class Allocation:
    """Memory for one array, or for several in turn, within one computation."""

    leaf: Leaf
    step: Instruction  # that makes it
    first: int
    last: int
    owned: bool = True  # False where the caller allots it, and for a program's arguments and results
    carried: int | None = None  # its number among the arrays that a loop carries, at the start of the body
    writer: Instruction | None = None  # what makes it anew in the body of a loop that carries it


@dataclasses.dataclass(frozen=True)
class Live:
    """An array at the fullest moment."""

    shape: str
    bytes: int
    place: str  # as JAX names it; of a loop's carry, the place of what writes it


@dataclasses.dataclass(frozen=True)
class _Body:
    """A computation with its memory; `carries` are the arrays that each of its loops takes in."""

    steps: list[Instruction]
    allocations: list[Allocation]
    carries: dict[str, list[Allocation]]


def fullest(text: str) -> list[Live]:
    """All arrays that are live at the fullest moment of a scheduled program, arguments and results excepted."""
    computations = dict(read_computations(text.splitlines()))
    entry = _ENTRY.search(text)
    tiled = ":T(" in text  # a TPU's, whose layouts say what lies in small memories

    @functools.cache
    def peak(name: str, owned: tuple[bool, ...]) -> tuple[int, tuple[Allocation, ...]]:
        return _fullest_of(_read(computations, name, owned, tiled), peak)

    found = peak(entry.group(1), ())[1] if entry else ()
    lines = {step.name: step for steps in computations.values() for step in steps}
    places = (_place(one.writer, computations, lines) or _place(one.step, computations, lines) for one in found)
    return [Live(one.leaf.shape, one.leaf.bytes, place) for one, place in zip(found, places, strict=True)]


def _fullest_of(body: _Body, peak: Callable) -> tuple[int, tuple[Allocation, ...]]:
    """Bytes at the fullest moment, those of called computations included, and what they are of."""
    change = [0] * (len(body.steps) + 1)
    for one in body.allocations:
        change[one.first] += one.leaf.bytes * one.owned
        change[one.last + 1] -= one.leaf.bytes * one.owned
    most, at, inside, now = -1, 0, (), 0
    for place, step in enumerate(body.steps):
        now += change[place]
        carry = body.carries.get(step.name, [])
        outside = now - sum(one.leaf.bytes for one in set(carry) if one.owned)  # the body counts them
        called = step.called if step.opcode in ("while", "conditional", "call") else ()
        found = (peak(name, tuple(one.owned for one in carry)) for name in called)
        within, arrays = max(found, key=lambda one: one[0], default=(0, ()))
        if outside + within > most:
            most, at = outside + within, place
            inside = tuple(one if one.carried is None else carry[one.carried] for one in arrays)
    carry = set(body.carries.get(body.steps[at].name, [])) if body.steps else ()
    here = (one for one in body.allocations if one.owned and one.first <= at <= one.last and one not in carry)
    return max(most, 0), (*(one for one in here if one.leaf.bytes), *inside)


def _read(computations: dict[str, list[Instruction]], name: str, owned: tuple[bool, ...], tiled: bool) -> _Body:
    """A computation's allocations; `owned` says which of a loop's carried arrays are temporaries at all."""
    steps = computations.get(name, [])
    last_read = {operand: place for place, step in enumerate(steps) for operand in step.operands}
    results = {step.name: step.result for step in steps}
    values: dict[str, list[Allocation]] = {}
    made: list[Allocation] = []
    carries: dict[str, list[Allocation]] = {}
    for place, step in enumerate(steps):
        read = [(name, one) for name in step.operands for one in values.get(name, [])]
        for _, one in read:
            one.last = place
        arrays = [one for _, one in read]
        fresh = [Allocation(leaf, step, place, place) for leaf in leaves(step.result, tiled)]
        match step.opcode:
            case "parameter" | "constant":
                for index, one in enumerate(fresh):
                    one.owned = step.opcode == "parameter" and index < len(owned) and owned[index]
                    one.carried = index if owned else None
                value = fresh
            case "get-tuple-element":
                index = _INDEX.search(step.rest)
                start, end = element(results[step.operands[0]], int(index.group(1)) if index else 0)
                value = arrays[start:end]
            case "while":
                carries[step.name] = value = arrays
                for one, writer in zip(arrays, _writers(computations, step), strict=False):
                    one.writer = writer or one.writer
            case "copy-done":
                value = arrays[:1]
            case opcode if opcode in _ALIASES or opcode.endswith(("-done", "-update")):
                value = _handed_on(arrays, fresh)
            case "copy-start":
                value = [fresh[0], *arrays[:1], *fresh[2:]]
            case opcode if opcode.endswith("-start") and opcode != "all-reduce-start":  # what goes in comes first
                value = [*arrays[: len(fresh)], *fresh[len(arrays) :]]
            case _:
                dying = [one for name, one in read if last_read[name] == place and step.opcode not in _OWN_RESULT]
                value = [_in_place(one, dying) for one in fresh]
        values[step.name] = value
        made += [one for one in value if one.step is step]
    carried = {one.carried: one for one in made if one.carried is not None}
    for index, one in enumerate(values[steps[-1].name] if steps else []):
        one.owned, one.last = index < len(owned) and owned[index], len(steps) - 1
        before = carried.get(index, one)
        if before is not one:  # one place holds both: the compiler sees to it that they do not meet
            one.first = min(max(one.first, before.last + 1), one.last)
    return _Body(steps, made, carries)


def _in_place(new: Allocation, dying: list[Allocation]) -> Allocation:
    """The memory of an array of the same type that is read here for the last time, or new memory."""
    for index, old in enumerate(dying):
        if old.leaf == new.leaf and old.owned:
            return dying.pop(index)
    return new


def _handed_on(arrays: list[Allocation], fresh: list[Allocation]) -> list[Allocation]:
    """Those that a result names: of what a start holds, the last of each shape."""
    if len(arrays) == len(fresh):
        return arrays
    left, found = list(arrays), []
    for new in fresh:
        index = next((at for at in reversed(range(len(left))) if left[at].leaf.shape == new.leaf.shape), None)
        found.append(new if index is None else left.pop(index))
    return found


def _writers(computations: dict[str, list[Instruction]], loop: Instruction) -> Iterable[Instruction | None]:
    """What makes each array of a loop's carry anew, in an inner loop perhaps; None where it stays."""
    body = next((steps for name in loop.called if (steps := computations.get(name))), [])
    known = {step.name: step for step in body}
    for name in body[-1].operands if body else ():
        step = known.get(name)
        while step is not None and step.opcode in (*_ALIASES[1:], "copy", "get-tuple-element"):
            index, step = _INDEX.search(step.rest), known.get(step.operands[0])
            if index and step is not None and step.opcode == "while":
                inner = list(_writers(computations, step))
                at = int(index.group(1))
                step = (inner[at] if at < len(inner) else None) or step
                break
        yield None if step is None or step.opcode in _ALWAYS_THERE else step


def _place(step: Instruction | None, computations: dict[str, list[Instruction]], lines: dict[str, Instruction]) -> str:
    """Its own, else that of the last line inside that has one, else that of what it copies."""
    while step is not None:
        inside = (line.rest for name in step.called for line in reversed(computations.get(name, [])))
        found = next((found for text in (step.rest, *inside) if (found := _PLACE.search(text))), None)
        if found:
            return found.group(1)
        step = lines.get(step.operands[0]) if step.operands and step.opcode not in _ALWAYS_THERE else None
    return ""
