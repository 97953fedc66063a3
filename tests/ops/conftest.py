"""Cases of attention: few, yet every two choices of different kinds meet in one of them."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.ops import AttentionConfig, attention

CHAINS, TOKENS, HEADS, HEAD_SIZE = 3, 13, 4, 4
CHOICES = {
    "causal": (True, False),
    "window": (None, 1, 4),
    "segments": ("one", "packed", "padded"),
    "key_heads": (1, 2, 4),
    "permuted": (False, True),
    "dropout": (0.0, 0.3),
    "blocks": ((4, 4), (5, 3), (64, 16)),
}


def covering_set() -> list[tuple]:
    """Greedily: in each case, as many pairs that have not met yet as possible."""
    everything = list(itertools.product(*CHOICES.values()))

    def pairs(case: tuple) -> set:
        return set(itertools.combinations(enumerate(case), 2))

    missing = set().union(*map(pairs, everything))
    chosen = []
    while missing:
        chosen.append(max(everything, key=lambda case: len(pairs(case) & missing)))
        missing -= pairs(chosen[-1])
    return chosen


@dataclasses.dataclass(frozen=True)
class Case:
    """Which masks, heads and blocks; arrays and options for `attention` on request."""

    causal: bool
    window: int | None
    segments: str
    key_heads: int
    permuted: bool
    dropout: float
    blocks: tuple[int, int]

    @property
    def positions(self) -> np.ndarray:
        order = np.arange(TOKENS, dtype=np.int32)
        shuffle = np.random.default_rng(1).permutation
        return np.stack([shuffle(order) if self.permuted else order for _ in range(CHAINS)])

    @property
    def segment_ids(self) -> np.ndarray:
        """Of tokens in memory order; "padded" has padding at both ends of a chain, and a chain of nothing else."""
        by_position = {
            "one": np.zeros((CHAINS, TOKENS), np.int32),
            "packed": np.repeat([[0, 1, 2], [5, 6, 6], [3, 3, 9]], [3, 6, 4], axis=1).astype(np.int32),
            "padded": np.repeat([[-1, 0, -1], [0, 0, 1], [-1, -1, -1]], [3, 6, 4], axis=1).astype(np.int32),
        }[self.segments]
        return np.take_along_axis(by_position, self.positions, axis=1)

    def arrays(self, dtype=np.float64, seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Query, key and value."""
        generator = np.random.default_rng(seed)
        heads = (HEADS, self.key_heads, self.key_heads)
        return tuple(jnp.asarray(generator.normal(size=(CHAINS, TOKENS, n, HEAD_SIZE)), dtype) for n in heads)

    def attend(self, strategy: str, query, key, value) -> jax.Array:
        """By `ringrl.ops.attention`."""
        query_block, key_block = self.blocks
        return attention(
            query,
            key,
            value,
            config=AttentionConfig(strategy=strategy, query_block_size=query_block, key_block_size=key_block),
            causal=self.causal,
            positions=jnp.asarray(self.positions),
            segment_ids=jnp.asarray(self.segment_ids),
            window=self.window,
            dropout_rate=self.dropout,
            dropout_key=jax.random.key(7),
        )

    def allowed(self, chain: int, query: int, key: int) -> bool:
        """The rule, said once more for two tokens."""
        positions, segments = self.positions[chain], self.segment_ids[chain]
        distance = int(positions[query]) - int(positions[key])
        if segments[key] < 0 or segments[query] != segments[key]:
            return False
        if self.causal and distance < 0:
            return False
        return self.window is None or abs(distance) < self.window


def _name(case: Case) -> str:
    words = [case.segments, f"K{case.key_heads}", "{}x{}".format(*case.blocks)]
    words += ["causal"] * case.causal + [f"window{case.window}"] * bool(case.window)
    return "-".join(words + ["permuted"] * case.permuted + ["dropout"] * bool(case.dropout))


ALL_CASES = [Case(*choice) for choice in covering_set()]


@pytest.fixture(params=ALL_CASES, ids=_name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="session")
def make_case() -> type[Case]:
    return Case
