"""Cases of attention over several devices: few programs, yet every two choices of different kinds meet in one.

What a program is compiled for is a `Case`; positions and segments (`LABELS`) are its arguments, so each program meets
all of them.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from covering import covering_set

from ringrl.ops import AttentionConfig, Layout, attention, dealing_order
from ringrl.parallel import make_mesh

CHAINS, HEADS = 2, 4
EVERY_DAY = 6  # cases of the covering set
QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time
CHOICES = {
    "where": (
        ("ring", {"ring": 8}),
        ("ring", {"ring": 2}),
        ("ring", {"ring": 1}),
        ("ring", {"data": 2, "ring": 2, "head": 2}),
        ("ulysses", {"head": 4}),
        ("ulysses", {"fsdp": 2, "ring": 2, "head": 2}),
        ("hybrid", {"ring": 2, "head": 2}),
        ("hybrid", {"data": 1, "ring": 2, "head": 4}),
    ),
    "causal": (True, False),
    "window": (None, 1, 6),
    "in_order": (False, True),  # positions are left out: a window then bounds the hops
    "key_heads": (2, 1, 4),
    "tokens": (64, 21, 5),  # 64 divide into blocks, pieces and zigzag's stretches; 5 are fewer than the devices
    "blocks": ((4, 2), (64, 64)),
    "dropout": (0.0, 0.3),
}
ORDERS = (*Layout, "permuted")
SEGMENTS = ("one", "packed", "padded")  # "padded" has padding at both ends, and a chain of half padding: empty rows


@dataclasses.dataclass(frozen=True)
class Case:
    """What a program is compiled for."""

    strategy: str
    mesh: tuple[tuple[str, int], ...]
    causal: bool
    window: int | None
    in_order: bool
    key_heads: int
    tokens: int
    blocks: tuple[int, int]
    dropout: float
    head_size: int = 4

    @property
    def reference(self) -> "Case":
        """The same by dense attention on one device."""
        return dataclasses.replace(self, strategy="dense", mesh=(), blocks=(64, 64), in_order=False)

    def arrays(self, dtype) -> list[jax.Array]:
        """Query, key, value, and the output's gradient."""
        generator = np.random.default_rng(0)
        heads = (HEADS, self.key_heads, self.key_heads, HEADS)
        return [jnp.asarray(generator.normal(size=(CHAINS, self.tokens, n, self.head_size)), dtype) for n in heads]

    def labels(self) -> list[tuple[str, str]]:
        """All orders and segments that the program can be given."""
        orders = (Layout.contiguous,) if self.in_order else ORDERS
        return list(itertools.product(orders, SEGMENTS))

    def results(self, dtype, labels: tuple[str, str] = ("contiguous", "one")) -> list[np.ndarray]:
        """Output, and the gradients of query, key and value."""
        return [np.asarray(array) for array in program(self)(*self.arrays(dtype), *token_labels(self.tokens, *labels))]


@functools.lru_cache(maxsize=2)  # thousands of programs would use up the memory maps that a process may have
def program(case: Case):
    """Compiled once, for all labels."""
    mesh = make_mesh(**dict(case.mesh)) if case.mesh or case.strategy != "dense" else None

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(query, key, value, output_gradient, positions, segment_ids):
        def attend(query, key, value):
            return attention(
                query,
                key,
                value,
                config=AttentionConfig(case.strategy, query_block_size=case.blocks[0], key_block_size=case.blocks[1]),
                mesh=mesh,
                causal=case.causal,
                window=case.window,
                positions=None if case.in_order else positions,
                segment_ids=segment_ids,
                dropout_rate=case.dropout,
                dropout_key=jax.random.key(3),
            )

        output, pull_back = jax.vjp(attend, query, key, value)
        return output, *pull_back(output_gradient)

    return run


@functools.cache
def expected(case: Case, labels: tuple[str, str]) -> list[np.ndarray]:
    """Of a reference, in float64."""
    return case.results(np.float64, labels)


def token_labels(tokens: int, order: str, segments: str, devices: int = 8) -> tuple[jax.Array, jax.Array]:
    """Positions, as dealt to eight devices or shuffled, and the segments of those positions."""
    if order == "permuted":
        shuffle = np.random.default_rng(1).permutation
        positions = np.stack([shuffle(tokens) for _ in range(CHAINS)])
    else:
        dealt = dealing_order(Layout(order), tokens, devices)
        positions = np.stack([dealt[dealt < tokens]] * CHAINS)
    by_position = np.arange(tokens)
    packed = by_position // 7
    padded = np.where(by_position < 2, -1, packed)
    kinds = {
        "one": [np.zeros(tokens, int)] * CHAINS,
        "packed": [packed] * CHAINS,
        "padded": [padded, np.where(by_position < tokens // 2, -1, padded)],
    }
    segment_ids = np.take_along_axis(np.stack(kinds[segments]), positions, axis=1)
    return jnp.asarray(positions, jnp.int32), jnp.asarray(segment_ids, jnp.int32)


def as_case(choice: tuple) -> Case:
    """From a tuple of `CHOICES`."""
    (strategy, mesh), *others = choice
    return Case(strategy, tuple(mesh.items()), *others)


def _name(case: Case) -> str:
    mesh = "".join(f"{axis}{size}" for axis, size in case.mesh)
    words = [case.strategy, mesh, f"K{case.key_heads}", f"S{case.tokens}"] + ["in_order"] * case.in_order
    words += ["causal"] * case.causal + [f"window{case.window}"] * bool(case.window) + ["dropout"] * bool(case.dropout)
    return "-".join(words) + "-{}x{}".format(*case.blocks)


COVERING = [as_case(choice) for choice in covering_set(CHOICES, sample=300)]
EVERYTHING = [as_case(choice) for choice in itertools.product(*CHOICES.values())]
# Leaving positions out matters only to causal windows, and a window of 1 is in the covering set.
GRID = [case for case in EVERYTHING if case.window != 1 and (not case.in_order or (case.causal and case.window))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`case`: the covering set, of which the first, where most choices meet, are for every day; `any_case`: all."""
    if "case" in metafunc.fixturenames:
        rest = [pytest.param(case, marks=pytest.mark.scale) for case in COVERING[EVERY_DAY:]]
        metafunc.parametrize("case", [*COVERING[:EVERY_DAY], *rest], ids=_name)
    if "any_case" in metafunc.fixturenames:
        unasked = "not slow" in metafunc.config.getoption("markexpr")  # thousands, which take long to collect
        metafunc.parametrize("any_case", GRID[:1] if unasked else GRID, ids=_name)


@pytest.fixture
def token_labels_of():
    """`token_labels_of(tokens, order, segments)`."""
    return token_labels


@pytest.fixture
def make_case():
    """`make_case(strategy, mesh, **fields)`: causal, without window or dropout, unless told otherwise."""

    def make(strategy: str, mesh: dict[str, int], **fields) -> Case:
        plain = {"causal": True, "window": None, "in_order": False, "key_heads": 2, "tokens": 21, "blocks": (4, 3)}
        return Case(strategy, tuple(mesh.items()), **{**plain, "dropout": 0.0, **fields})

    return make


@pytest.fixture
def fresh_programs():
    """For tests that put something else in the place of a part: no program made without it, none left behind."""
    program.cache_clear()
    yield
    program.cache_clear()


@pytest.fixture
def truth():
    """`truth(case, labels)`: what dense attention gives in float64; to be called where 64 bits are enabled."""
    return lambda case, labels: expected(case.reference, labels)
