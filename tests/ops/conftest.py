"""Cases of attention: few, yet every two choices of different kinds meet in one of them."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from covering import covering_set

from ringrl.ops import AttentionConfig, attention

CHAINS, TOKENS, HEADS, HEAD_SIZE = 3, 13, 4, 4
CHOICES = {
    "causal": (True, False),
    "dropout": (0.0, 0.3),
    "window": (None, 1, 4),
    "key_heads": (2, 1, 4),
    "blocks": ((5, 3), (4, 4), (64, 16)),
}
QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time
# Segments by position; "padded" has padding at both ends of a chain, and a chain of nothing else.
SEGMENTS = {
    "one": np.zeros((CHAINS, TOKENS), np.int32),
    "packed": np.repeat([[0, 1, 2], [5, 6, 6], [3, 3, 9]], [3, 6, 4], axis=1).astype(np.int32),
    "padded": np.repeat([[-1, 0, -1], [0, 0, 1], [-1, -1, -1]], [3, 6, 4], axis=1).astype(np.int32),
}


@dataclasses.dataclass(frozen=True)
class Labels:
    """Positions and segments of every token, (B, S), in memory order."""

    positions: np.ndarray
    segment_ids: np.ndarray

    def distance(self, chain: int, query: int, key: int) -> int:
        return int(self.positions[chain, query]) - int(self.positions[chain, key])


def make_labels(segments: str = "padded", permuted: bool = True) -> Labels:
    order, shuffle = np.arange(TOKENS, dtype=np.int32), np.random.default_rng(1).permutation
    positions = np.stack([shuffle(order) if permuted else order for _ in range(CHAINS)])
    return Labels(positions, np.take_along_axis(SEGMENTS[segments], positions, axis=1))


@dataclasses.dataclass(frozen=True)
class Case:
    """What a program is compiled for."""

    causal: bool
    dropout: float
    window: int | None
    key_heads: int
    blocks: tuple[int, int]

    def arrays(self, dtype=np.float64, seed: int = 0) -> list[jax.Array]:
        """Query, key and value."""
        generator = np.random.default_rng(seed)
        heads = (HEADS, self.key_heads, self.key_heads)
        return [jnp.asarray(generator.normal(size=(CHAINS, TOKENS, n, HEAD_SIZE)), dtype) for n in heads]

    def attend(self, strategy: str, arrays: list[jax.Array], positions: jax.Array, segment_ids: jax.Array) -> jax.Array:
        """By `ringrl.ops.attention`."""
        query_block, key_block = self.blocks
        return attention(
            *arrays,
            config=AttentionConfig(strategy=strategy, query_block_size=query_block, key_block_size=key_block),
            causal=self.causal,
            positions=positions,
            segment_ids=segment_ids,
            window=self.window,
            dropout_rate=self.dropout,
            dropout_key=jax.random.key(7),
        )

    def attend_and_differentiate(self, strategy: str, arrays, output_gradient, positions, segment_ids):
        """Output, and the arrays' gradients."""
        attend = functools.partial(self.attend, strategy, positions=positions, segment_ids=segment_ids)
        output, pull_back = jax.vjp(attend, arrays)
        return [output, *pull_back(output_gradient)[0]]

    @functools.cache  # noqa: B019 (as many as there are cases)
    def _program(self, strategy: str):
        return jax.jit(functools.partial(self.attend_and_differentiate, strategy), compiler_options=QUICK)

    def gradients(self, strategy: str, labels: Labels, dtype, scale: float = 1.0) -> list[np.ndarray]:
        """Output, and gradients of query, key and value, for random arrays."""
        query, key, value = self.arrays(dtype)
        output_gradient = self.arrays(dtype, seed=1)[0]
        found = self._program(strategy)(
            [query * scale, key, value], output_gradient, labels.positions, labels.segment_ids
        )
        return [np.asarray(array) for array in found]

    def allowed(self, labels: Labels, chain: int, query: int, key: int) -> bool:
        """The rule, said once more for two tokens."""
        segments, distance = labels.segment_ids[chain], labels.distance(chain, query, key)
        if segments[key] < 0 or segments[query] != segments[key]:
            return False
        if self.causal and distance < 0:
            return False
        return self.window is None or abs(distance) < self.window


def _name(case: Case) -> str:
    words = [f"K{case.key_heads}", "{}x{}".format(*case.blocks)]
    return "-".join(words + ["causal"] * case.causal + [f"window{case.window}"] * bool(case.window)) + (
        "-dropout" * bool(case.dropout)
    )


ALL_CASES = [Case(*choice) for choice in covering_set(CHOICES)]


@pytest.fixture(params=ALL_CASES, ids=_name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="session")
def causal_case() -> Case:
    """The most usual of the cases: causal, without window or dropout, with grouped heads and uneven blocks."""
    return ALL_CASES[ALL_CASES.index(Case(True, 0.0, None, 2, (5, 3)))]


@pytest.fixture(scope="session")
def labels():
    """`labels(segments, permuted)`."""
    return make_labels


@pytest.fixture(scope="session")
def all_labels() -> dict[str, Labels]:
    """Every kind of segments, in order and permuted."""
    kinds = itertools.product(SEGMENTS, (False, True))
    return {f"{segments}, permuted {permuted}": make_labels(segments, permuted) for segments, permuted in kinds}
