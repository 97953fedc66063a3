"""A library's fused attention, which knows two masks, made to serve any labels exactly.

The kind of mask is found as the program runs, and a switch calls the kernel in the way that makes that mask of its
two; the XLA kernel stands in for masks that cannot be made so. A strict triangle is a lower one whose queries all
move up by one place.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ringrl.ops.kernels import xla
from ringrl.ops.kernels.interface import DropoutKeys, Labels, LocalOptions, Logsumexp, no_keys
from ringrl.ops.kernels.kinds import Kind, first_that_holds, kinds_that_hold
from ringrl.ops.precision import accumulator_dtype

_UNSEEN = 1e30  # a logsumexp that leaves a row no weight


class Rows(NamedTuple):
    """What the backward pass knows of each query, over all keys of all devices."""

    logsumexp: Float[Array, "B S H"]  # rounded, as the libraries take it
    row_sums: Float[Array, "B S H"]  # of output x its gradient
    output_gradient: Float[Array, "B S H D"]
    output: Float[Array, "B S H D"]  # for a kernel that takes the row sums itself


class FusedKernel(NamedTuple):
    """Attention to every key, or (causal) of query i to keys 0 to i; in any dtype, for finite logsumexps."""

    forward: Callable[..., tuple[jax.Array, jax.Array]]  # (query, key, value, causal) -> output, logsumexp
    backward: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]  # (query, key, value, rows, causal) -> gradients


def forward_part(
    kernel: FusedKernel,
    options: LocalOptions,
    query: Float[Array, "B S H D"],
    key: Float[Array, "B T K D"],
    value: Float[Array, "B T K D"],
    queries: Labels,
    keys: Labels,
    dropout: DropoutKeys,
) -> tuple[Float[Array, "B S H D"], Logsumexp]:
    """What `xla.forward_part` gives, but for the rounding of the kernel's own output, and for queries of padding.

    Those are given some finite row: the ring silences them when it has merged everything.
    """
    accumulator, middle_query, middle_key = accumulator_dtype(query), query.shape[1] // 2, key.shape[1] // 2

    def nothing(like: jax.Array):
        return jnp.zeros(like.shape, accumulator), no_keys(like.shape[:3], accumulator)

    def attend(query, key, value, *, causal=False):
        output, logsumexp = kernel.forward(query, key, value, causal)
        logsumexp = logsumexp.astype(accumulator)
        return output.astype(accumulator), Logsumexp(logsumexp, jnp.zeros_like(logsumexp))

    def late_queries():
        parts = nothing(query[:, :middle_query]), attend(query[:, middle_query:], key, value)
        return jax.tree.map(lambda *part: jnp.concatenate(part, axis=1), *parts)

    def strict():
        output, logsumexp = jax.tree.map(_down, attend(_up(query), key, value, causal=True))
        return output.at[:, 0].set(0.0), logsumexp._replace(highest=logsumexp.highest.at[:, 0].set(-jnp.inf))

    ways = {
        Kind.masked: lambda: nothing(query),
        Kind.early_keys: lambda: attend(query, key[:, :middle_key], value[:, :middle_key]),
        Kind.late_queries: late_queries,
        Kind.strict: strict,
        Kind.causal: lambda: attend(query, key, value, causal=True),
        Kind.full: lambda: attend(query, key, value),
        Kind.mixed: lambda: xla.forward_part(options, query, key, value, queries, keys, dropout),
    }
    return _switch(ways, options, queries, keys)


def backward_part(
    kernel: FusedKernel,
    options: LocalOptions,
    query: Float[Array, "B S H D"],
    key: Float[Array, "B T K D"],
    value: Float[Array, "B T K D"],
    queries: Labels,
    keys: Labels,
    dropout: DropoutKeys,
    logsumexp: Logsumexp,
    row_sums: Float[Array, "B S H"],
    output_gradient: Float[Array, "B S H D"],
    output: Float[Array, "B S H D"],
) -> tuple[Float[Array, "B S H D"], Float[Array, "B T K D"], Float[Array, "B T K D"]]:
    """What `xla.backward_part` gives, but for the rounding of the kernel's own gradients."""
    accumulator, middle_query, middle_key = accumulator_dtype(query), query.shape[1] // 2, key.shape[1] // 2
    # Padding, and a row without a key, attend to nothing anywhere: their logsumexp is -inf.
    finite = jnp.where(jnp.isfinite(logsumexp.highest), logsumexp.value, _UNSEEN)
    seen = Rows(finite, row_sums, output_gradient, output)

    def differentiate(query, key, value, rows, *, causal=False):
        return tuple(part.astype(accumulator) for part in kernel.backward(query, key, value, rows, causal))

    def zeros(like: jax.Array):
        return jnp.zeros(like.shape, accumulator)

    def early_keys():
        query_part, *parts = differentiate(query, key[:, :middle_key], value[:, :middle_key], seen)
        return query_part, *(jnp.concatenate([part, zeros(key[:, middle_key:])], axis=1) for part in parts)

    def late_queries():
        late = jax.tree.map(lambda row: row[:, middle_query:], seen)
        query_part, *parts = differentiate(query[:, middle_query:], key, value, late)
        return jnp.concatenate([zeros(query[:, :middle_query]), query_part], axis=1), *parts

    def strict():
        moved = jax.tree.map(_up, seen)
        moved = moved._replace(logsumexp=moved.logsumexp.at[:, -1].set(_UNSEEN))
        query_part, *parts = differentiate(_up(query), key, value, moved, causal=True)
        return _down(query_part), *parts

    ways = {
        Kind.masked: lambda: (zeros(query), zeros(key), zeros(value)),
        Kind.early_keys: early_keys,
        Kind.late_queries: late_queries,
        Kind.strict: strict,
        Kind.causal: lambda: differentiate(query, key, value, seen, causal=True),
        Kind.full: lambda: differentiate(query, key, value, seen),
        Kind.mixed: lambda: xla.backward_part(
            options,
            query,
            key,
            value,
            queries,
            keys,
            dropout,
            logsumexp,
            row_sums,
            output_gradient,
        ),
    }
    return _switch(ways, options, queries, keys)


def _switch(ways: dict[Kind, Callable], options: LocalOptions, queries: Labels, keys: Labels):
    holds = kinds_that_hold(options, queries, keys)
    return jax.lax.switch(first_that_holds(holds), [ways[kind] for kind in holds])


def _up(array: jax.Array) -> jax.Array:
    """Each row in the place before it; the first one last."""
    return jnp.roll(array, -1, axis=1)


def _down(array: jax.Array) -> jax.Array:
    """The inverse of `_up`."""
    return jnp.roll(array, 1, axis=1)
