"""What every local kernel is told."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from ringrl.ops.config import Kernel


class LocalOptions(NamedTuple):
    """What is known when the program is traced."""

    causal: bool
    window: int | None
    dropout_rate: float
    query_block_size: int
    key_block_size: int
    kernel: Kernel = Kernel.xla


class Labels(NamedTuple):
    """Position and segment of each token."""

    positions: Int[Array, "B S"]
    segments: Int[Array, "B S"]


class Logsumexp(NamedTuple):
    """Of each row's scores, as two terms of which it is the sum: `highest` is -inf for a row without a key.

    Their sum would be rounded: scores of 1e4 leave float32 a thousandth, which is the error of every weight that the
    backward pass computes from it.
    """

    highest: Float[Array, "B S H"]  # the highest score, or what a fused kernel gives for the whole
    log_total: Float[Array, "B S H"]  # the log of the sum of exp(score - highest); 0 for a row without a key

    @property
    def value(self) -> Float[Array, "B S H"]:
        """The sum, rounded; -inf for a row without a key."""
        return self.highest + self.log_total

    @property
    def shift(self) -> Float[Array, "B S H"]:
        """`highest`, and 0 for a row without a key: what may be subtracted from scores."""
        return jnp.where(jnp.isfinite(self.highest), self.highest, 0.0)


def no_keys(shape: tuple[int, ...], dtype: jnp.dtype) -> Logsumexp:
    """Of rows that attend to nothing."""
    return Logsumexp(jnp.full(shape, -jnp.inf, dtype), jnp.zeros(shape, dtype))


def join(one: Logsumexp, other: Logsumexp) -> tuple[Logsumexp, jax.Array, jax.Array]:
    """Over two disjoint sets of keys together; and what share of the weights each set has."""
    highest = jnp.maximum(one.highest, other.highest)
    shift = jnp.where(jnp.isfinite(highest), highest, 0.0)
    terms = one.highest - shift + one.log_total, other.highest - shift + other.log_total
    log_total = jnp.logaddexp(*terms)
    log_total = jnp.where(jnp.isfinite(log_total), log_total, 0.0)
    return Logsumexp(highest, log_total), jnp.exp(terms[0] - log_total), jnp.exp(terms[1] - log_total)


class DropoutKeys(NamedTuple):
    """What names a weight for dropout, beside its two positions; chains and heads are numbered over all devices."""

    seed: UInt32[Array, "2"]
    chains: Int[Array, " B"]
    heads: Int[Array, " H"]
