"""The arguments of attention that go together, as pytrees: options, queries and keys with their labels."""

import dataclasses
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from ringrl.ops.config import Kernel
from ringrl.ops.masks import Labels


class LocalOptions(NamedTuple):
    """Static options: the mask, the dropout rate, and how a local block is computed."""

    causal: bool
    window: int | None
    dropout_rate: float
    query_block_size: int
    key_block_size: int
    kernel: Kernel = Kernel.xla


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QueryBlock:
    """Queries, and the positions and segments of their tokens."""

    query: Float[Array, "B Q H D"]
    labels: Labels


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyBlock:
    """Keys and values, and the positions and segments of their tokens. K divides H."""

    key: Float[Array, "B T K D"]
    value: Float[Array, "B T K D"]
    labels: Labels


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Operands:
    """Queries, keys and values of the same tokens, whose labels are held once."""

    query: Float[Array, "B S H D"]
    key: Float[Array, "B S K D"]
    value: Float[Array, "B S K D"]
    labels: Labels

    @property
    def queries(self) -> QueryBlock:
        """The query side."""
        return QueryBlock(self.query, self.labels)

    @property
    def keys(self) -> KeyBlock:
        """The key side."""
        return KeyBlock(self.key, self.value, self.labels)
