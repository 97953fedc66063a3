"""Attention of one or a few new tokens over a cache of keys and values, whole on one device or spread over many.

Spread over a mesh, the cache stays where it is: every device attends to the tokens that it holds, and the partial
results, a row a head, are merged by logsumexp (as tree attention does, Shyam et al. 2024, arXiv 2408.04093).
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from ringrl.errors import RingRLError
from ringrl.ops.masks import attention_mask
from ringrl.ops.precision import accumulator_dtype
from ringrl.ops.sharded import BATCH_AXES, SEQUENCE_AXES, check_axes


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
    already; its tokens may lie in any order. A query with nothing to attend to gives 0.

    With a `mesh` (axes data, fsdp, ring, head) chains are spread over data x fsdp, and cached tokens over ring x head,
    of which every device has the whole result. What travels is a maximum and a sum of the size of the query.

    Raises RingRLError where the mesh lacks an axis, or does not divide the chains or the cached tokens: to fill a
    cache up at every call would copy it.
    """
    arrays = (query, key, value, query_positions, key_positions, query_segments, key_segments)
    if mesh is None:
        return _attend(*arrays, window=window)[0].reshape(query.shape).astype(query.dtype)
    _check(mesh, chains=key.shape[0], tokens=key.shape[2])
    chains, tokens = PartitionSpec(BATCH_AXES), PartitionSpec(BATCH_AXES, SEQUENCE_AXES)
    rows = PartitionSpec(BATCH_AXES, None, SEQUENCE_AXES)
    sharded = jax.shard_map(
        functools.partial(_attend_and_merge, window=window),
        mesh=mesh,
        in_specs=(chains, rows, rows, chains, tokens, chains, tokens),
        out_specs=chains,
    )
    return sharded(*arrays)


def _attend_and_merge(query: Float[Array, "B Q H D"], *others: jax.Array, window: int | None) -> jax.Array:
    """The whole output from what each device finds in its part of the cache, by a maximum and one sum."""
    part, logsumexp = _attend(query, *others, window=window)
    highest = jax.lax.pmax(jax.lax.stop_gradient(logsumexp), SEQUENCE_AXES)
    weight = jnp.exp(logsumexp - jnp.where(jnp.isfinite(highest), highest, 0.0))[..., None]
    # Both sums in one array, so that they travel as one.
    sums = jax.lax.psum(jnp.concatenate([part * weight, weight], axis=-1), SEQUENCE_AXES)
    mixed, total = sums[..., :-1], sums[..., -1:]
    return (mixed / jnp.where(total > 0, total, 1.0)).reshape(query.shape).astype(query.dtype)


def _attend(
    query: Float[Array, "B Q H D"],
    key: Float[Array, "B K T D"],
    value: Float[Array, "B K T D"],
    query_positions: Int[Array, "B Q"],
    key_positions: Int[Array, "B T"],
    query_segments: Int[Array, "B Q"],
    key_segments: Int[Array, "B T"],
    *,
    window: int | None,
) -> tuple[Float[Array, "B Q K G D"], Float[Array, "B Q K G"]]:
    """Output over these keys alone, unrounded, and its logsumexp: 0 and -inf where a row has nothing to attend to."""
    chains, queries, heads, head_size = query.shape
    accumulator = accumulator_dtype(query)
    grouped = query.reshape(chains, queries, key.shape[1], heads // key.shape[1], head_size)
    grouped = jnp.einsum("bqkgd->bkqgd", grouped * jnp.asarray(head_size**-0.5, query.dtype))
    # The cache is read as it lies: with these operands in this order, XLA on a CPU does not transpose a copy of it.
    per_head = ((0, 1), (0, 1))
    scores = jax.lax.dot_general(key, grouped, (((3,), (4,)), per_head), preferred_element_type=accumulator)
    scores = jnp.einsum("bktqg->bkqgt", scores)
    allowed = attention_mask(query_positions, key_positions, query_segments, key_segments, causal=True, window=window)
    scores = jnp.where(allowed[:, None, :, None, :], scores, -jnp.inf)
    highest = scores.max(axis=-1, keepdims=True)
    shift = jnp.where(jnp.isfinite(highest), highest, 0.0)
    weights = jnp.exp(scores - shift)
    total = weights.sum(axis=-1, keepdims=True)
    some = jnp.where(total > 0, total, 1.0)
    mixed = jax.lax.dot_general(
        (weights / some).astype(value.dtype), value, (((4,), (2,)), per_head), preferred_element_type=accumulator
    )
    logsumexp = jnp.where(total > 0, shift + jnp.log(some), -jnp.inf)
    return jnp.einsum("bkqgd->bqkgd", mixed), jnp.einsum("bkqg->bqkg", logsumexp[..., 0])


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
