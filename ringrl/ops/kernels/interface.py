"""The interface of a local kernel: it computes attention of some queries to some keys, forward and backward."""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ringrl.ops.dropout import DropoutKeys
from ringrl.ops.operands import KeyBlock, LocalOptions, QueryBlock


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Logsumexp:
    """The logsumexp of each row's scores, as two terms; `highest` is -inf for a row without a key.

    Their sum would be rounded: scores of 1e4 leave float32 a thousandth, which is the error of every weight that the
    backward pass computes from it.
    """

    highest: Float[Array, "B Q H"]  # the highest score, or what a fused kernel gives for the whole
    log_total: Float[Array, "B Q H"]  # the log of the sum of exp(score - highest); 0 for a row without a key

    @property
    def value(self) -> Float[Array, "B Q H"]:
        """The sum, rounded; -inf for a row without a key."""
        return self.highest + self.log_total

    @property
    def shift(self) -> Float[Array, "B Q H"]:
        """`highest`, and 0 for a row without a key: what may be subtracted from scores."""
        return jnp.where(jnp.isfinite(self.highest), self.highest, 0.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """Residuals of each query's row of weights, over the keys of all devices, for the backward pass."""

    logsumexp: Logsumexp
    row_sums: Float[Array, "B Q H"] | None  # of output x its gradient; None where one block has all keys
    output_gradient: Float[Array, "B Q H D"]
    output: Float[Array, "B Q H D"]  # unrounded; for a kernel that takes the row sums itself


Part = tuple[Float[Array, "B Q H D"], Logsumexp]  # the output of each query over some of the keys, and its logsumexp
Gradients = tuple[Float[Array, "B Q H D"], tuple[Float[Array, "B T K D"], Float[Array, "B T K D"]]]  # query; key, value


class LocalKernel(Protocol):
    """The interface of a local kernel, a module or an object. Results are not rounded: at least float32."""

    def forward(self, options: LocalOptions, queries: QueryBlock, keys: KeyBlock, dropout: DropoutKeys) -> Part:
        """Output over these keys alone and its logsumexp: 0 and -inf where a row has nothing to attend to."""
        ...

    def backward(
        self, options: LocalOptions, queries: QueryBlock, keys: KeyBlock, dropout: DropoutKeys, rows: Rows
    ) -> Gradients:
        """These keys' share of the gradients of query, and of key and value."""
        ...


def no_keys(shape: tuple[int, ...], dtype: jnp.dtype) -> Logsumexp:
    """The logsumexp of rows that attend to nothing."""
    return Logsumexp(jnp.full(shape, -jnp.inf, dtype), jnp.zeros(shape, dtype))


def join(one: Logsumexp, other: Logsumexp) -> tuple[Logsumexp, jax.Array, jax.Array]:
    """The logsumexp over two disjoint sets of keys, and the share of the weights that each set has."""
    highest = jnp.maximum(one.highest, other.highest)
    shift = jnp.where(jnp.isfinite(highest), highest, 0.0)
    terms = one.highest - shift + one.log_total, other.highest - shift + other.log_total
    log_total = jnp.logaddexp(*terms)
    log_total = jnp.where(jnp.isfinite(log_total), log_total, 0.0)
    return Logsumexp(highest, log_total), jnp.exp(terms[0] - log_total), jnp.exp(terms[1] - log_total)
