"""Attention of one or a few new tokens over a cache of keys and values, whole on one device or spread over many.

Spread over a mesh, the cache stays where it is: every device attends to the tokens that it holds, and the partial
results, a row a head, are merged by logsumexp (as tree attention does, Shyam et al. 2024, arXiv 2408.04093).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from ringrl.errors import RingRLError
from ringrl.ops.checks import check_arrays, checked_window, int32_labels
from ringrl.ops.explicit import on_automatic_axes
from ringrl.ops.masks import Labels, attention_mask, silence_padding
from ringrl.ops.precision import accumulator_dtype
from ringrl.ops.sharded import BATCH_AXES, SEQUENCE_AXES, check_axes

_TOKENS_AT_A_TIME = 32  # where hidden values are left out one by one


def decode_attention(
    query: Float[Array, "B Q H D"],
    key: Float[Array, "B K T D"],
    value: Float[Array, "B K T D"],
    *,
    query_positions: Int[Array, "B Q"],
    key_positions: Int[Array, "B T"],
    query_segments: Int[Array, "B Q"],
    key_segments: Int[Array, "B T"],
    window: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Float[Array, "B Q H D"]:
    """Causal attention of new tokens over cached ones (heads before tokens, as the cache keeps them).

    A cached token counts when its segment is the query's, its position is not later, and (with a `window`) fewer
    than `window` positions back; negative segments never count. The new tokens' own keys must be in the cache
    already; its tokens may lie in any order. Keys and values that do not count may be anything, not-a-number too.

    With a `mesh` (axes data, fsdp, ring, head) chains are spread over data x fsdp, and cached tokens over ring x head,
    of which every device has the whole result. What travels is a maximum and a sum of the size of the query.

    Args:
      query: of the new tokens; floats of one dtype with key and value.
      key, value: the cache; K divides H, and query head h reads key head h // (H / K).
      query_positions, key_positions: the original position of each token, int32.
      query_segments, key_segments: the segment of each token, int32; negative is padding.
      window: in tokens, the query's own included; by default there is none.
      mesh: the devices of a cache that is spread out; by default one has it whole.

    Returns:
      The mixed values in the query's dtype; 0 where a query has nothing to attend to.

    Raises:
      RingRLError: shapes or dtypes that do not fit each other, or a mesh that lacks an axis, or does not divide the
        chains or the cached tokens: to fill a cache up at every call would copy it.
    """
    _check_arrays(query, key, value)
    window = checked_window("decode_attention", window)
    query, key, value = (jnp.asarray(array) for array in (query, key, value))  # NumPy's float64 as JAX takes it
    checked, new, cached = functools.partial(int32_labels, "decode_attention"), query.shape[:2], key.shape[:3:2]
    queries = Labels(checked("query_positions", query_positions, new), checked("query_segments", query_segments, new))
    keys = Labels(checked("key_positions", key_positions, cached), checked("key_segments", key_segments, cached))
    if query.size == 0 or key.size == 0:
        return jnp.zeros(query.shape, query.dtype)
    arrays = (query, key, value, queries, keys)
    if mesh is None:

        def whole(_, query: jax.Array, *others) -> jax.Array:
            return _attend(window, query, *others)[0].reshape(query.shape).astype(query.dtype)

        return on_automatic_axes(whole, None, jax.typeof(query).sharding.spec, *arrays)
    _check(mesh, chains=key.shape[0], tokens=key.shape[2])
    chains, tokens = PartitionSpec(BATCH_AXES), PartitionSpec(BATCH_AXES, SEQUENCE_AXES)
    rows = PartitionSpec(BATCH_AXES, None, SEQUENCE_AXES)

    def sharded(mesh: jax.sharding.Mesh | None, *arrays) -> jax.Array:
        attend = functools.partial(_attend_and_merge, window)
        in_specs = (chains, rows, rows, chains, tokens)
        return jax.shard_map(attend, mesh=mesh, in_specs=in_specs, out_specs=chains)(*arrays)

    return on_automatic_axes(sharded, mesh, chains, *arrays)


def _attend_and_merge(
    window: int | None, query: jax.Array, key: jax.Array, value: jax.Array, queries: Labels, keys: Labels
) -> Float[Array, "B Q H D"]:
    """The whole output from what each device finds in its part of the cache, by a maximum and one sum."""
    # What is whole on every device is said to be each device's own, so that their shares of its gradient are added.
    query, queries = jax.tree.map(lambda x: jax.lax.pcast(x, SEQUENCE_AXES, to="varying"), (query, queries))
    part, highest, total = _attend(window, query, key, value, queries, keys)
    over_all = jax.lax.pmax(jax.lax.stop_gradient(highest), SEQUENCE_AXES)
    weight = (total * jnp.exp(highest - jnp.where(jnp.isfinite(over_all), over_all, 0.0)))[..., None]
    # Both sums in one array, so that they travel as one.
    sums = jax.lax.psum(jnp.concatenate([part * weight, weight], axis=-1), SEQUENCE_AXES)
    mixed, total = sums[..., :-1], sums[..., -1:]
    return (mixed / jnp.where(total > 0, total, 1.0)).reshape(query.shape).astype(query.dtype)


Found = tuple[Float[Array, "B Q K G D"], Float[Array, "B Q K G"], Float[Array, "B Q K G"]]


def _find(
    window: int | None, query: jax.Array, key: jax.Array, value: jax.Array, queries: Labels, keys: Labels
) -> Found:
    """Output over these keys alone, unrounded; the highest score of each row, and the sum of exp(score - highest).

    They are 0, -inf and 0 where a row has nothing to attend to. Hidden keys and values may be anything: where a
    result is not a number, it is computed once more, in a way that never multiplies what is hidden. A copy of the cache
    with zeros in their place would cost more than the rest.
    """
    weights, *found = _weigh(window, query, key, queries, keys)
    mixed = _product(weights.astype(value.dtype), value, (4,), (2,))
    mixed = jax.lax.cond(
        jnp.isfinite(mixed).all(),
        lambda mixed, *_: mixed,
        functools.partial(_mix_seen, window),  # which makes the mask anew: it would be held for it
        mixed,
        weights.astype(value.dtype),
        value,
        queries,
        keys,
    )
    return _queries_first(mixed, *found)


def _mix_seen(
    window: int | None, mixed: jax.Array, weights: jax.Array, value: jax.Array, queries: Labels, keys: Labels
) -> jax.Array:
    """Weights times values where a query may see a key, some tokens at a time, in place of a `mixed` that is spoilt."""
    allowed = attention_mask(queries, keys, causal=True, window=window)[:, None, :, None, :]
    tokens = value.shape[2]
    size = min(tokens, _TOKENS_AT_A_TIME)

    def add(total: jax.Array, first: jax.Array) -> tuple[jax.Array, None]:
        start = jnp.minimum(first, tokens - size)  # the last tokens overlap those before, which count once
        rows = jax.lax.dynamic_slice_in_dim(value, start, size, axis=2)[:, :, None, None].astype(total.dtype)
        shares = jax.lax.dynamic_slice_in_dim(weights, start, size, axis=4)[..., None].astype(total.dtype)
        seen = jax.lax.dynamic_slice_in_dim(allowed, start, size, axis=4)
        seen &= (start + jnp.arange(size) >= first)[None, None, None, None]
        return total + jnp.where(seen[..., None], shares * rows, 0.0).sum(axis=4), None

    nothing = jnp.where(mixed == 0.0, mixed, 0.0)  # zeros, on the devices that `mixed` is on
    return jax.lax.scan(add, nothing, jnp.arange(0, tokens, size))[0]


def _weigh(
    window: int | None,
    query: Float[Array, "B Q H D"],
    key: Float[Array, "B K T D"],
    queries: Labels,
    keys: Labels,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The weight of each key for each query (B, K, Q, G, T); maximum and sum."""
    chains, new, heads, head_size = query.shape
    grouped = query.reshape(chains, new, key.shape[1], heads // key.shape[1], head_size)
    grouped = jnp.einsum("bqkgd->bkqgd", grouped)
    # The cache is read as it lies: with these operands in this order, XLA on a CPU does not transpose a copy of it.
    scores = jnp.einsum("bktqg->bkqgt", _product(key, grouped, (3,), (4,)))
    scores = scores * jnp.asarray(head_size**-0.5, scores.dtype)  # there, where nothing is rounded to 16 bits
    allowed = attention_mask(queries, keys, causal=True, window=window)[:, None, :, None, :]
    scores = jnp.where(allowed, scores, -jnp.inf)
    highest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - jnp.where(jnp.isfinite(highest), highest, 0.0))
    total = weights.sum(axis=-1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1.0), highest, total


def _queries_first(mixed: jax.Array, highest: jax.Array, total: jax.Array) -> Found:
    highest, total = (jnp.einsum("bkqg->bqkg", row[..., 0]) for row in (highest, total))
    return jnp.einsum("bkqgd->bqkgd", mixed), highest, total


def _product(one: jax.Array, other: jax.Array, axes_of_one: tuple[int, ...], axes_of_other: tuple[int, ...]):
    """Contracted along these axes, of each chain and head by itself."""
    dimensions = ((axes_of_one, axes_of_other), ((0, 1), (0, 1)))
    return jax.lax.dot_general(one, other, dimensions, preferred_element_type=accumulator_dtype(one))


def _save(window: int | None, *arrays: Any):
    return _find(window, *arrays), arrays


def _restore(window: int | None, arrays: tuple[Any, ...], gradients: Found):
    """By differentiating the plain form, in which what no query may see is 0."""
    query, key, value, queries, keys = arrays
    seen = attention_mask(queries, keys, causal=True, window=window)
    seen = jnp.where(seen.any(axis=1), 0, -1)  # as segments, of which a negative one is silenced

    def plain(query: jax.Array, key: jax.Array, value: jax.Array) -> Found:
        query = silence_padding(query, queries.segments)
        key, value = (jnp.swapaxes(silence_padding(jnp.swapaxes(x, 1, 2), seen), 1, 2) for x in (key, value))
        weights, *rows = _weigh(window, query, key, queries, keys)
        found = _queries_first(_product(weights.astype(value.dtype), value, (4,), (2,)), *rows)
        mixed, highest, total = (silence_padding(x, queries.segments) for x in found)
        return mixed, highest, total

    _, pull_back = jax.vjp(plain, query, key, value)
    no_gradient = jax.tree.map(lambda label: np.zeros(label.shape, jax.dtypes.float0), (queries, keys))  # integers
    return *pull_back(gradients), *no_gradient


_attend: Any = jax.custom_vjp(_find, nondiff_argnums=(0,))
_attend.defvjp(_save, _restore)


def _check_arrays(query: jax.Array, key: jax.Array, value: jax.Array) -> None:
    check_arrays("decode_attention", query=query, key=key, value=value)
    fits = query.ndim == key.ndim == 4 and key.shape == value.shape
    fits = fits and (query.shape[0], query.shape[3]) == (key.shape[0], key.shape[3])
    if not fits or query.shape[2] % max(key.shape[1], 1):
        raise RingRLError(
            f"decode_attention shapes do not fit: query {query.shape}, key {key.shape}, value {value.shape}; "
            "expected (B, Q, H, D), (B, K, T, D), (B, K, T, D) with K dividing H."
        )


def _check(mesh: jax.sharding.Mesh, *, chains: int, tokens: int) -> None:
    check_axes("decode_attention", mesh)
    batch_devices, devices = (math.prod(mesh.shape[axis] for axis in axes) for axes in (BATCH_AXES, SEQUENCE_AXES))
    if chains % batch_devices:
        raise RingRLError(
            f"decode_attention: {chains} chains do not divide among mesh.data x mesh.fsdp = {batch_devices} devices: "
            f"decode {chains + -chains % batch_devices}, or change the mesh."
        )
    if tokens % devices:
        raise RingRLError(
            f"decode_attention: a cache of {tokens} tokens does not divide among mesh.ring x mesh.head = {devices} "
            f"devices: allocate {tokens + -tokens % devices}."
        )
