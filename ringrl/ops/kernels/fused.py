"""A library's fused attention, which knows two masks, made to serve any labels exactly.

The kind of mask is found as the program runs, and a switch calls the kernel in the way that makes that mask of its
two; the XLA kernel stands in for masks that cannot be made so. A strict triangle is a lower one whose queries all
move up by one place.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ringrl.ops.dropout import DropoutKeys
from ringrl.ops.kernels import xla
from ringrl.ops.kernels.interface import Gradients, Logsumexp, Part, Rows, no_keys
from ringrl.ops.kernels.kinds import Kind, first_that_holds, kinds_that_hold
from ringrl.ops.operands import KeyBlock, LocalOptions, QueryBlock
from ringrl.ops.precision import accumulator_dtype

_UNSEEN = 1e30  # a logsumexp that leaves a row no weight


class FusedRows(NamedTuple):
    """`Rows`, with the logsumexp as one rounded number, which is how the libraries take it."""

    logsumexp: Float[Array, "B S H"]
    row_sums: Float[Array, "B S H"]
    output_gradient: Float[Array, "B S H D"]
    output: Float[Array, "B S H D"]


class Library(Protocol):
    """Attention to every key, or (causal) of query i to keys 0 to i; in any dtype, for finite logsumexps."""

    def forward(
        self, query: jax.Array, key: jax.Array, value: jax.Array, causal: bool
    ) -> tuple[Float[Array, "B S H D"], Float[Array, "B S H"]]:
        """Output and logsumexp."""
        ...

    def backward(
        self, query: jax.Array, key: jax.Array, value: jax.Array, rows: FusedRows, causal: bool
    ) -> tuple[Float[Array, "B S H D"], Float[Array, "B T K D"], Float[Array, "B T K D"]]:
        """These keys' share of the gradients of query, key and value."""
        ...


@dataclasses.dataclass(frozen=True)
class FusedKernel:
    """A local kernel made of a library's attention; its results are rounded as the library rounds them."""

    library: Library

    def forward(self, options: LocalOptions, queries: QueryBlock, keys: KeyBlock, dropout: DropoutKeys) -> Part:
        """The result of `xla.forward`, except at queries that are padding.

        Those are given some finite row: the ring silences them when it has merged everything.
        """
        query, key, value = queries.query, keys.key, keys.value
        accumulator, middle_query, middle_key = accumulator_dtype(query), query.shape[1] // 2, key.shape[1] // 2

        def nothing(like: jax.Array) -> Part:
            return jnp.zeros(like.shape, accumulator), no_keys(like.shape[:3], accumulator)

        def attend(query, key, value, *, causal=False) -> Part:
            output, logsumexp = self.library.forward(query, key, value, causal)
            logsumexp = logsumexp.astype(accumulator)
            return output.astype(accumulator), Logsumexp(logsumexp, jnp.zeros_like(logsumexp))

        def late_queries():
            parts = nothing(query[:, :middle_query]), attend(query[:, middle_query:], key, value)
            return jax.tree.map(lambda *part: jnp.concatenate(part, axis=1), *parts)

        def strict() -> Part:
            output, logsumexp = jax.tree.map(_down, attend(_up(query), key, value, causal=True))
            highest = logsumexp.highest.at[:, 0].set(-jnp.inf)
            return output.at[:, 0].set(0.0), Logsumexp(highest, logsumexp.log_total)

        ways = {
            Kind.masked: lambda: nothing(query),
            Kind.early_keys: lambda: attend(query, key[:, :middle_key], value[:, :middle_key]),
            Kind.late_queries: late_queries,
            Kind.strict: strict,
            Kind.causal: lambda: attend(query, key, value, causal=True),
            Kind.full: lambda: attend(query, key, value),
            Kind.mixed: lambda: xla.forward(options, queries, keys, dropout),
        }
        return _switch(ways, options, queries, keys)

    def backward(
        self, options: LocalOptions, queries: QueryBlock, keys: KeyBlock, dropout: DropoutKeys, rows: Rows
    ) -> Gradients:
        """The result of `xla.backward`."""
        query, key, value = queries.query, keys.key, keys.value
        accumulator, middle_query, middle_key = accumulator_dtype(query), query.shape[1] // 2, key.shape[1] // 2
        # Padding, and a row without a key, attend to nothing anywhere: their logsumexp is -inf.
        finite = jnp.where(jnp.isfinite(rows.logsumexp.highest), rows.logsumexp.value, _UNSEEN)
        assert rows.row_sums is not None
        seen = FusedRows(finite, rows.row_sums, rows.output_gradient, rows.output)

        def differentiate(query, key, value, rows, *, causal=False) -> Gradients:
            parts = self.library.backward(query, key, value, rows, causal)
            query_part, key_part, value_part = (part.astype(accumulator) for part in parts)
            return query_part, (key_part, value_part)

        def zeros(like: jax.Array) -> jax.Array:
            return jnp.zeros(like.shape, accumulator)

        def early_keys():
            query_part, key_parts = differentiate(query, key[:, :middle_key], value[:, :middle_key], seen)
            rest = zeros(key[:, middle_key:])
            return query_part, jax.tree.map(lambda part: jnp.concatenate([part, rest], axis=1), key_parts)

        def late_queries() -> Gradients:
            late = jax.tree.map(lambda row: row[:, middle_query:], seen)
            query_part, key_parts = differentiate(query[:, middle_query:], key, value, late)
            return jnp.concatenate([zeros(query[:, :middle_query]), query_part], axis=1), key_parts

        def strict() -> Gradients:
            moved = jax.tree.map(_up, seen)
            moved = moved._replace(logsumexp=moved.logsumexp.at[:, -1].set(_UNSEEN))
            query_part, key_parts = differentiate(_up(query), key, value, moved, causal=True)
            return _down(query_part), key_parts

        ways = {
            Kind.masked: lambda: (zeros(query), (zeros(key), zeros(value))),
            Kind.early_keys: early_keys,
            Kind.late_queries: late_queries,
            Kind.strict: strict,
            Kind.causal: lambda: differentiate(query, key, value, seen, causal=True),
            Kind.full: lambda: differentiate(query, key, value, seen),
            Kind.mixed: lambda: xla.backward(options, queries, keys, dropout, rows),
        }
        return _switch(ways, options, queries, keys)


def _switch(ways: dict[Kind, Callable], options: LocalOptions, queries: QueryBlock, keys: KeyBlock):
    holds = kinds_that_hold(options, queries.labels, keys.labels)
    return jax.lax.switch(first_that_holds(holds), [ways[kind] for kind in holds])


def _up(array: jax.Array) -> jax.Array:
    """Each row in the place before it; the first one last."""
    return jnp.roll(array, -1, axis=1)


def _down(array: jax.Array) -> jax.Array:
    """The inverse of `_up`."""
    return jnp.roll(array, 1, axis=1)
