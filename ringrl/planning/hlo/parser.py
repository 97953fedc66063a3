"""Parser of HLO text (`compiled.as_text()`) into typed values.

`parse(text)` gives a `Module` of computations, each a list of instructions in the order of their lines, which in a
scheduled program is the order of execution. All analyses use the `Module`; no other file depends on the text format.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

from ringrl.errors import RingRLError

COLLECTIVES = ("collective-permute", "all-gather", "reduce-scatter", "all-to-all", "all-reduce")
HOST_SPACE = 5  # the memory space of the host in a layout
_LEAST_BITS = 8  # an array of `pred` or of a narrower integer takes a byte per element

_ENTRY = re.compile(r"^ENTRY %([\w.-]+) ", re.MULTILINE)
_PARTITIONS = re.compile(r"num_partitions=(\d+)")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.-]+) = (.*?) ([a-z][a-z\d-]*)\((.*)")
_ARRAY = re.compile(r"([a-z]+\d*\w*)\[([\d,]*)\](?:\{([\d,]*)((?::[^}]*)?)\})?")
_BITS, _TILE, _SPACE = re.compile(r"[a-z]+(\d+)"), re.compile(r"T\(([\d,]+)\)"), re.compile(r"S\((\d+)\)")

_NAME = re.compile(r"%([\w.-]+)")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|true_computation|false_computation)=%([\w.-]+)")
_CALLED_LIST = re.compile(r"\b(?:calls|branch_computations|called_computations)=\{([^}]*)\}")
_CONDITION, _INDEX = re.compile(r"\bcondition=%([\w.-]+)"), re.compile(r"\bindex=(\d+)")
_SCOPE, _LIBRARY = re.compile(r'op_name="([^"]*)"'), re.compile(r'custom_call_target="([^"]*)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_IS_SYNCHRONOUS = '"is_sync":true'  # a GPU compiler's attribute of a start that is immediately followed by its done
_LISTED_GROUPS = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_COUNTED_GROUPS = re.compile(r"replica_groups=\[\d+,(\d+)\]")
_NAMED_GROUPS = re.compile(r"replica_groups=mesh\[(.*?)\].*?\{('.*?)\}")  # along axes of a mesh of all devices
_AXIS_SIZE, _AXIS = re.compile(r"'([^']+)'=(\d+)"), re.compile(r"'([^']+)'(?::\(\d+\)(\d+))?")
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")
_PAIR = re.compile(r"\{(\d+),(\d+)\}")


@dataclasses.dataclass(frozen=True)
class ArrayType:
    """The type of an array, `bf16[2,16]{1,0:T(8,128)S(1)}`: element type, sizes, and layout in a device's memory."""

    dtype: str
    shape: tuple[int, ...]
    order: tuple[int, ...] = dataclasses.field(default=(), compare=False)  # dimensions, from minor to major
    tile: tuple[int, ...] = dataclasses.field(default=(), compare=False)  # sizes are padded to its multiples
    space: int = dataclasses.field(default=0, compare=False)  # memory space: 0 is the device's main memory

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @property
    def bytes(self) -> int:
        """Bytes of the elements, without padding."""
        return math.prod(self.shape) * self._element_bytes

    def allocated_bytes(self, tiled: bool) -> int:
        """Bytes in the device's main memory, padded to whole tiles; 0 if the array is in another memory.

        Args:
          tiled: whether the program's layouts have tiles, as a TPU's do: then every `space` but 0 is another memory,
              otherwise only the host's.
        """
        if self.space and (tiled or self.space == HOST_SPACE):
            return 0
        sizes = list(self.shape)
        if self.tile and sizes:
            sizes = [sizes[dimension] for dimension in self.order]  # minor first, as the tile has it last
            for place, size in enumerate(reversed(self.tile)):
                if place < len(sizes):
                    sizes[place] += -sizes[place] % size
        return math.prod(sizes) * self._element_bytes

    @property
    def _element_bytes(self) -> int:
        bits = _BITS.match(self.dtype)
        return max(int(bits.group(1)) if bits else 0, _LEAST_BITS) // 8


@dataclasses.dataclass(frozen=True)
class Type:
    """The type of a value: the arrays of an array or a tuple, with nested tuples flattened.

    `ends[i]` is the number of arrays in the outermost tuple's elements 0 to i.
    """

    arrays: tuple[ArrayType, ...]
    ends: tuple[int, ...]

    def element(self, index: int) -> slice:
        """The slice of arrays that belongs to element `index` of the outermost tuple."""
        return slice(self.ends[index - 1] if index else 0, self.ends[index])


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    type_text: str
    rest: str  # text after the opcode's parenthesis: operands and attributes

    @functools.cached_property
    def type(self) -> Type:
        """Type of the result."""
        return parse_type(self.type_text)

    @functools.cached_property
    def operands(self) -> tuple[str, ...]:
        """Names of the operands."""
        return tuple(_NAME.findall(self._arguments))

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it runs, except a loop's condition."""
        several = (name for names in _CALLED_LIST.findall(self.rest) for name in _NAME.findall(names))
        return (*_CALLED.findall(self.rest), *several)

    @functools.cached_property
    def scope(self) -> str:
        """Its origin in JAX's program (`op_name`), empty if the compiler does not give it."""
        return _first(_SCOPE, self.rest) or ""

    @property
    def condition(self) -> str | None:
        """The name of a loop's condition."""
        return _first(_CONDITION, self.rest)

    @property
    def index(self) -> int | None:
        """Index of a `get-tuple-element`."""
        found = _first(_INDEX, self.rest)
        return None if found is None else int(found)

    @property
    def trip_count(self) -> int | None:
        """Trip count of a loop, if the compiler gives it."""
        found = _first(_TRIPS, self.rest)
        return None if found is None else int(found)

    @property
    def literal(self) -> str:
        """The value of a constant, as written."""
        return self.rest.partition(")")[0]

    @property
    def counts_upwards(self) -> bool:
        """Whether it is the comparison `less than`."""
        return self.opcode == "compare" and "direction=LT" in self.rest

    @property
    def library(self) -> str:
        """The target of a custom call."""
        return _first(_LIBRARY, self.rest) or "" if self.opcode == "custom-call" else ""

    @property
    def is_synchronous(self) -> bool:
        """Whether the compiler marks a start as immediately followed by its done."""
        return _IS_SYNCHRONOUS in self.rest

    @property
    def collective(self) -> str | None:
        """The kind of collective that it is or starts."""
        kind = self.opcode.removesuffix("-start")
        return kind if kind in COLLECTIVES else None

    @property
    def permuted(self) -> int:
        """Number of devices that send to another device in a permute."""
        pairs = _PAIR.findall(_first(_PAIRS, self.rest) or "")
        return sum(source != target for source, target in pairs)

    def group_size(self, devices: int) -> int:
        """Number of devices in a collective's group, in any of the compilers' three notations; all by default."""
        named = _NAMED_GROUPS.search(self.rest)
        if named:
            sizes = dict(_AXIS_SIZE.findall(named.group(1)))
            return math.prod(int(part or sizes[axis]) for axis, part in _AXIS.findall(named.group(2)))
        listed, counted = _first(_LISTED_GROUPS, self.rest), _first(_COUNTED_GROUPS, self.rest)
        if listed:
            return listed.count(",") + 1
        return int(counted) if counted else devices

    @property
    def _arguments(self) -> str:
        """The argument list up to its closing parenthesis; types in it may contain parentheses too."""
        depth, end = 1, 0
        while depth and end < len(self.rest):
            depth += {"(": 1, ")": -1}.get(self.rest[end], 0)
            end += 1
        return self.rest[:end]


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program: its computations by name, ordered so that a computation comes before its callers."""

    computations: Mapping[str, tuple[Instruction, ...]]
    entry: str  # the computation that the program runs
    partitions: int  # devices
    scheduled: bool  # whether the order of instructions is that of execution
    tiled: bool  # whether layouts have tiles, as a TPU's do

    def body(self, name: str) -> tuple[Instruction, ...]:
        """The instructions of a computation, none if the text does not have it."""
        return self.computations.get(name, ())

    def trip_count(self, loop: Instruction) -> int | None:
        """Trip count of a loop: annotated, or the number up to which its condition counts from 0; None if neither."""
        if loop.trip_count is not None:
            return loop.trip_count
        steps = list(self.body(loop.condition)) if loop.condition else []
        steps += [inner for step in steps for called in step.called for inner in self.body(called)]
        bounds = {step.literal for step in steps if step.opcode == "constant"}
        if len(bounds) == 1 and any(step.counts_upwards for step in steps):
            [bound] = bounds
            return int(bound) if bound.isdecimal() else None
        return None


def parse(text: str) -> Module:
    """Parse a compiled program (`compiled.as_text()`).

    Raises:
      RingRLError: the text is not a compiled program.
    """
    header = text.partition("\n")[0]
    entry, partitions = _first(_ENTRY, text), _first(_PARTITIONS, header)
    if not header.startswith("HloModule") or entry is None:
        raise RingRLError("This is no compiled program: give `compiled.as_text()`.")
    return Module(
        computations=dict(_read_computations(text)),
        entry=entry,
        partitions=int(partitions) if partitions else 1,
        scheduled="is_scheduled=true" in header,
        tiled=":T(" in text,
    )


@functools.lru_cache(maxsize=4096)
def parse_type(text: str) -> Type:
    """Parse the type of a value: `f32[8,4]{1,0}`, or a tuple of types, `(s32[], (f32[2], f32[2]))`."""
    arrays: list[ArrayType] = []
    ends: list[int] = []
    depth = place = 0
    while place < len(text):
        found = _ARRAY.match(text, place)
        if found:
            arrays.append(_array_type(found))
            place = found.end()
            continue
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if text[place] == "," and depth == 1:
            ends.append(len(arrays))
        place += 1
    return Type(tuple(arrays), (*ends, len(arrays)))


def _array_type(found: re.Match[str]) -> ArrayType:
    dtype, shape, order, extra = found.groups()
    tile, space = _first(_TILE, extra or ""), _first(_SPACE, extra or "")
    return ArrayType(dtype, _integers(shape), _integers(order), _integers(tile), int(space or 0))


def _read_computations(text: str) -> Iterator[tuple[str, tuple[Instruction, ...]]]:
    name, steps = None, []
    for line in text.splitlines():
        if name is None:
            name, steps = _first(_COMPUTATION, line), []
        elif line.startswith("}"):
            yield name, tuple(steps)
            name = None
        else:
            found = _INSTRUCTION.match(line)
            if found:
                result, type_text, opcode, rest = found.groups()
                steps.append(Instruction(result, opcode, type_text, rest))


def _integers(text: str | None) -> tuple[int, ...]:
    return tuple(int(size) for size in (text or "").split(",") if size)


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return found.group(1) if found else None
