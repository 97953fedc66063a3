"""The causal ring computes little more than a causal mask asks for, whatever the layout.

Two measurements of one compiled program. What a pair of blocks costs is read from its text: the products of a branch
that only unmasked pairs take, outside of which there is none. Which pairs take it is seen in a run: chain j has NaN
for the values of key block j, and a product with them shows in every row of the query block, even where weights are 0.
"""

import functools
import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.ops import AttentionConfig, Layout, attention, dealing_order
from ringrl.parallel import make_mesh

DEVICES, BLOCK_SIZE, HEADS, HEAD_SIZE = 8, 2, 1, 4
QUICK = {"xla_backend_optimization_level": 0}  # the same program, compiled in half the time


class Computation(NamedTuple):
    """One function of a compiled program: FLOPs of its own products, what it calls, and where it branches."""

    flops: int
    calls: list[str]
    branches: list[list[str]]


def dimensions(shape: str) -> list[int]:
    return [int(n) for n in shape.split(",") if n]


def read_program(text: str) -> dict[str, Computation]:
    """By name; the first is "ENTRY"."""
    found = {}
    for is_entry, name, body in re.findall(r"^(ENTRY )?%(\S+) \(.*?\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        shapes = dict(re.findall(r"%(\S+) = \w+\[([\d,]*)\]", body))
        flops, calls, branches = 0, [], []
        for line in body.splitlines():
            if product := re.search(
                r"= \w+\[([\d,]*)\]\S* dot\((?:\w+\[\S+ )?%([^,\s)]+),.*lhs_contracting_dims=\{([\d,]*)\}", line
            ):
                out, left, contracted = product.groups()
                sizes = dimensions(shapes[left])
                flops += 2 * math.prod(dimensions(out)) * math.prod(sizes[axis] for axis in dimensions(contracted))
            assert " custom-call(" not in line or "matmul" not in line, "a product that this test cannot count"
            names = re.findall(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%([^,\s]+)", line)
            names += re.findall(r"%([^,\s]+)", "".join(re.findall(r"branch_computations=\{(.*?)\}", line)))
            if " conditional(" in line:
                branches.append(names)
            else:
                calls += names
        found["ENTRY" if is_entry else name] = Computation(flops, calls, branches)
    return found


def flops_of(program: dict[str, Computation], name: str) -> int:
    """Of everything below a computation that no branch decides on."""
    own, calls, _ = program[name]
    return own + sum(flops_of(program, other) for other in calls)


def branches_below(program: dict[str, Computation], name: str) -> list[list[int]]:
    """FLOPs of the branches of every decision on the way down from a computation."""
    _, calls, branches = program[name]
    found = [sorted(flops_of(program, branch) for branch in decision) for decision in branches]
    return found + [one for other in calls for one in branches_below(program, other)]


def ideal(blocks: int) -> int:
    """Of a chain: two products a query and key that it sees."""
    tokens = DEVICES * blocks * BLOCK_SIZE
    return 4 * HEAD_SIZE * HEADS * tokens * (tokens + 1) // 2


@functools.cache
def compiled_forward(blocks: int):
    """For so many blocks a device, and labels that are arguments, so that every layout has the same program."""
    config = AttentionConfig("ring", query_block_size=BLOCK_SIZE, key_block_size=BLOCK_SIZE)
    mesh = make_mesh(ring=DEVICES)

    def forward(query, key, value, positions):
        return attention(query, key, value, config=config, mesh=mesh, positions=positions)

    shape = DEVICES * blocks, DEVICES * blocks * BLOCK_SIZE  # a chain for each block
    array = jax.ShapeDtypeStruct((*shape, HEADS, HEAD_SIZE), jnp.float32)
    positions = jax.ShapeDtypeStruct(shape, jnp.int32)
    return jax.jit(forward).lower(array, array, array, positions).compile(compiler_options=QUICK)


def pairs_computed(layout: Layout, blocks: int) -> np.ndarray:
    """True where the product of a query block's weights and a key block's values was computed: (queries, keys)."""
    chains, tokens = DEVICES * blocks, DEVICES * blocks * BLOCK_SIZE
    generator = np.random.default_rng(0)
    query, key, value = generator.normal(size=(3, chains, tokens, HEADS, HEAD_SIZE)).astype(np.float32)
    by_block = value.reshape(chains, -1, BLOCK_SIZE, HEADS, HEAD_SIZE)
    by_block[np.arange(chains), np.arange(chains)] = np.nan
    positions = np.broadcast_to(dealing_order(layout, tokens, DEVICES).astype(np.int32), (chains, tokens))
    output = np.asarray(compiled_forward(blocks)(query, key, value, positions))
    is_nan = np.isnan(output).reshape(chains, -1, BLOCK_SIZE * HEADS * HEAD_SIZE)
    np.testing.assert_array_equal(is_nan.any(axis=2), is_nan.all(axis=2))
    return is_nan.any(axis=2).T


def test_products_are_computed_by_decision_alone() -> None:
    blocks = 16
    program = read_program(compiled_forward(blocks).as_text())
    assert flops_of(program, "ENTRY") == 0
    decisions = [flops for flops in branches_below(program, "ENTRY") if any(flops)]
    assert decisions
    pair = 4 * BLOCK_SIZE**2 * HEAD_SIZE * HEADS * DEVICES * blocks
    assert decisions == [[0, pair]] * len(decisions)


@pytest.mark.parametrize(
    ("layout", "blocks"),
    [*((layout, 16) for layout in Layout), *((layout, blocks) for layout in Layout for blocks in (2, 4, 8))],
)
def test_flops_are_at_most_a_tenth_above_the_causal_ideal(layout: Layout, blocks: int) -> None:
    """However many pieces the keys of a device travel in: 1 for two blocks a device, 2 for four, 4 from eight on."""
    computed = pairs_computed(layout, blocks)
    pair = max(max(flops) for flops in branches_below(read_program(compiled_forward(blocks).as_text()), "ENTRY"))
    total, least = int(computed.sum()) * pair, DEVICES * blocks * ideal(blocks)
    # Every block of a striped device overlaps the diagonal blocks of all others.
    bound = 1.1 if layout is not Layout.striped or blocks >= 16 else 1 + 1.1 / blocks
    assert least <= total <= bound * least
    if layout is not Layout.contiguous:  # and no device has more than its share of that
        by_device = computed.reshape(DEVICES, blocks, -1).sum(axis=(1, 2))
        assert by_device.max() <= 1.02 * by_device.min()
