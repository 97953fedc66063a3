"""Cases of attention over several devices: few, yet every two choices of different kinds meet in one of them."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.ops import AttentionConfig, attention
from ringrl.parallel import make_mesh

CHAINS, HEADS = 2, 4
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
    "labels": ("default", "in order", "permuted"),
    "key_heads": (2, 1, 4),
    "tokens": (32, 21, 5),
    "blocks": ((4, 3), (64, 64)),
    "dropout": (0.0, 0.3),
}


def covering_set(seed: int = 0) -> list[tuple]:
    """Greedily, from random cases: each holds as many pairs that have not met yet as one can find."""
    generator = np.random.default_rng(seed)
    everything = list(itertools.product(*CHOICES.values()))

    def pairs(case: tuple) -> set:
        return set(itertools.combinations([(index, str(choice)) for index, choice in enumerate(case)], 2))

    missing = set().union(*map(pairs, everything))
    chosen = []
    while missing:
        some = [everything[index] for index in generator.choice(len(everything), 300, replace=False)]
        chosen.append(max(some, key=lambda case: len(pairs(case) & missing)))
        missing -= pairs(chosen[-1])
    return chosen


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of attention."""

    strategy: str
    mesh: tuple[tuple[str, int], ...]
    causal: bool
    window: int | None
    labels: str
    key_heads: int
    tokens: int
    blocks: tuple[int, int]
    dropout: float
    head_size: int = 4

    def arrays(self, dtype) -> list[jax.Array]:
        """Query, key, value, and the output's gradient."""
        generator = np.random.default_rng(0)
        heads = (HEADS, self.key_heads, self.key_heads, HEADS)
        return [jnp.asarray(generator.normal(size=(CHAINS, self.tokens, n, self.head_size)), dtype) for n in heads]

    def named(self) -> dict[str, jax.Array]:
        """Positions and segments: packed, padded at both ends, and a last chain of padding alone."""
        if self.labels == "default":
            return {}
        generator = np.random.default_rng(1)
        order = np.arange(self.tokens, dtype=np.int32)
        positions = np.stack([generator.permutation(order) if self.labels == "permuted" else order] * CHAINS)
        segments = np.where(order < 2, -1, order // 7).astype(np.int32)
        segments = np.stack([segments, np.where(order < self.tokens // 2, -1, segments)])
        return {
            "positions": jnp.asarray(positions),
            "segment_ids": jnp.asarray(np.take_along_axis(segments, positions, axis=1)),
        }

    def results(self, dtype, *, reference: bool = False) -> list[np.ndarray]:
        """Output, and the gradients of query, key and value; by dense attention where `reference`."""
        strategy = "dense" if reference else self.strategy
        options = {
            "config": AttentionConfig(strategy, query_block_size=self.blocks[0], key_block_size=self.blocks[1]),
            "mesh": None if reference else make_mesh(**dict(self.mesh)),
            "causal": self.causal,
            "window": self.window,
            "dropout_rate": self.dropout,
            "dropout_key": jax.random.key(3),
            **self.named(),
        }

        @functools.partial(jax.jit, compiler_options=QUICK)
        def run(query, key, value, output_gradient):
            output, pull_back = jax.vjp(functools.partial(attention, **options), query, key, value)
            return output, *pull_back(output_gradient)

        return [np.asarray(array) for array in run(*self.arrays(dtype))]


def _name(case: Case) -> str:
    mesh = "".join(f"{axis}{size}" for axis, size in case.mesh)
    words = [case.strategy, mesh, f"K{case.key_heads}", f"S{case.tokens}", case.labels.replace(" ", "_")]
    words += ["causal"] * case.causal + [f"window{case.window}"] * bool(case.window) + ["dropout"] * bool(case.dropout)
    return "-".join(words) + "-{}x{}".format(*case.blocks)


def as_case(choice: tuple) -> Case:
    """From a tuple of `CHOICES`."""
    (strategy, mesh), *others = choice
    return Case(strategy, tuple(mesh.items()), *others)


COVERING = [as_case(choice) for choice in covering_set()]
EVERYTHING = [as_case(choice) for choice in itertools.product(*CHOICES.values())]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`case`: the covering set; `any_case`: the whole grid."""
    for argument, cases in (("case", COVERING), ("any_case", EVERYTHING)):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, cases, ids=_name)


@pytest.fixture
def make_case():
    """`make_case(strategy, mesh, **fields)`: causal, without window or dropout, unless told otherwise."""

    def make(strategy: str, mesh: dict[str, int], **fields) -> Case:
        plain = {"causal": True, "window": None, "labels": "default", "key_heads": 2, "tokens": 21, "blocks": (4, 3)}
        return Case(strategy, tuple(mesh.items()), **{**plain, "dropout": 0.0, **fields})

    return make
