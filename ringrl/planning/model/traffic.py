"""Closed-form estimate of the communication between devices in a training step.

Bytes are those that one device sends, counted as `ringrl.planning.hlo.collectives` counts them in a program.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from ringrl.agents import SequenceAgent
from ringrl.errors import RingRLError
from ringrl.nn.config import Remat
from ringrl.ops.sharded import AXES_OF
from ringrl.parallel.sharding import explain, split_axes
from ringrl.planning.hlo.collectives import Kind

_LABEL_BYTES = 4  # a position or a segment, int32


def estimate_traffic(
    agent: SequenceAgent, chains: int, steps: int, pieces: int = 1, gradient_dtype: Any = jnp.float32
) -> dict[Kind, float]:
    """Estimate `sum_bytes_sent` of the agent's training step: bytes sent by one device in one step, by kind.

    The step has `chains` chains of `steps` steps over the agent's mesh, in `pieces` microbatches
    (`training.gradient_accumulation`), with gradients in `gradient_dtype` (`training.gradient_precision`). Supported
    strategies are the three that shard a chain, and `blockwise`. Attention: `_ring` and `_ulysses`; parameters and
    their gradients: `_parameters`; norms and means: `_scalars`. A compiler may send less: in a ring of two, with one
    microbatch, XLA merges equal transfers of forward and backward pass; or more: XLA for CPUs sums bfloat16 in float32.
    Raises RingRLError for an agent without a mesh.
    """
    mesh = agent.mesh
    if mesh is None:
        raise RingRLError("An agent without a mesh sends nothing: give it one of ringrl.make_mesh.")
    part = chains * steps * agent.tokens_per_step / mesh.size  # tokens per device
    exchanged, labels = _ulysses(agent, mesh, part)
    gathered, scattered, reduced = _parameters(agent, mesh, pieces, jnp.dtype(gradient_dtype).itemsize)
    return {
        Kind.permute: _ring(agent, mesh, part),
        Kind.all_gather: gathered + labels,
        Kind.reduce_scatter: scattered,
        Kind.all_to_all: exchanged,
        Kind.all_reduce: reduced + _scalars(agent, mesh),
    }


def _count_devices(agent: SequenceAgent, mesh: jax.sharding.Mesh) -> tuple[int, int]:
    """Number of devices in the ring, and in the exchange of heads."""
    ring, exchange = AXES_OF.get(agent.attention_config.strategy, ((), ()))
    return math.prod(mesh.shape[axis] for axis in ring), math.prod(mesh.shape[axis] for axis in exchange)


def _key_features(agent: SequenceAgent, exchange: int) -> int:
    """Size of a token's keys in transfer: heads that do not divide among the exchanging devices are repeated."""
    model = agent.model_config
    key_heads = model.key_value_heads or model.heads
    return key_heads * exchange // math.gcd(key_heads, exchange) * model.width // model.heads


def _again(remat: Remat) -> int:
    """Number of forward passes of attention that the backward pass recomputes."""
    return 0 if remat in (Remat.none, Remat.attention) else 1


def _ring(agent: SequenceAgent, mesh: jax.sharding.Mesh, part: float) -> float:
    """Keys and values of a device's tokens make n - 1 hops over the n devices of the ring, in any number of chunks.

    In the forward pass, once more if the layer's attention is recomputed, and in the backward pass: in the compute
    dtype, with two int32 labels per token (of all tokens whose heads were exchanged). In the backward pass also their
    gradients, in the dtype of sums, which make one additional hop back to their device.
    """
    devices, exchange = _count_devices(agent, mesh)
    hops, layers = devices - 1, agent.model_config.layers
    if not hops:
        return 0.0
    narrow, wide = jnp.dtype(agent.compute_dtype).itemsize, _sum_bytes(agent)
    trip = hops * part * (2 * _key_features(agent, exchange) * narrow + 2 * exchange * _LABEL_BYTES)
    gradients = (hops + 1) * part * 2 * _key_features(agent, exchange) * wide
    return layers * ((2 + _again(agent.model_config.remat)) * trip + gradients)


def _ulysses(agent: SequenceAgent, mesh: jax.sharding.Mesh, part: float) -> tuple[float, float]:
    """All-to-alls of queries, keys, values and mixed values; all-gathers of labels.

    Each of n devices keeps 1 / n of its data and sends (n - 1) / n: in the forward pass, in the backward pass as
    gradients, and once more unless remat=none keeps the received data. Labels, two int32 per token, come from every
    other device of the group: once for all layers, and with `remat` once per layer in the backward pass.
    """
    _, exchange = _count_devices(agent, mesh)
    model = agent.model_config
    passes = 2 if model.remat is Remat.none else 3
    token = 2 * (model.width + _key_features(agent, exchange)) * jnp.dtype(agent.compute_dtype).itemsize
    exchanged = model.layers * passes * part * token * (exchange - 1) / exchange
    label_passes = 1 if model.remat is Remat.none else 1 + model.layers
    return exchanged, label_passes * part * 2 * _LABEL_BYTES * (exchange - 1)


def _parameters(
    agent: SequenceAgent, mesh: jax.sharding.Mesh, pieces: int, gradient: int
) -> tuple[float, float, float]:
    """All-gathers of parameters, reduce-scatters and all-reduces of their gradients (`ringrl.parallel.gather`).

    Of a parameter of e elements in n shards (n - 1) / n e are sent: those of layers forward and backward, in the
    compute dtype, in every microbatch; the others once, in float32, because XLA hoists these gathers out of its loop
    over microbatches. Gradients once per microbatch, in `gradient` bytes per element. Over the m devices that hold the
    same shard, gradients are all-reduced once: 2 (m - 1) / m of that shard; with several microbatches it is the sum, in
    float32.
    """
    gathered = scattered = reduced = 0.0
    narrow = jnp.dtype(agent.compute_dtype).itemsize
    for placed in explain(jax.eval_shape(agent.init, jax.random.key(0)), mesh):
        whole, wide = math.prod(placed.shape), jnp.dtype(placed.dtype).itemsize
        parts = math.prod(mesh.shape[axis] for axis in split_axes(placed.spec))
        same = mesh.size // parts
        share = whole * (parts - 1) / parts
        gathered += share * (2 * pieces * narrow if "transformer/layers/" in placed.path else wide)
        scattered += share * pieces * gradient
        reduced += _all_reduced(same) * placed.bytes_per_device / wide * (gradient if pieces == 1 else wide)
    return gathered, scattered, reduced


def _scalars(agent: SequenceAgent, mesh: jax.sharding.Mesh) -> float:
    """All-reduces of scalars.

    Over all devices the loss and the denominator of its mean, in the dtype of sums; over the devices that shard a
    parameter, its squares, float32, for three norms: gradients before clipping, for clipping, and parameters.
    """
    total = 2 * _all_reduced(mesh.size) * _sum_bytes(agent)
    for placed in explain(jax.eval_shape(agent.init, jax.random.key(0)), mesh):
        parts = math.prod(mesh.shape[axis] for axis in split_axes(placed.spec))
        total += 3 * _all_reduced(parts) * jnp.dtype(placed.dtype).itemsize
    return total


def _all_reduced(devices: int) -> float:
    """Bytes that a device sends per byte of an all-reduce."""
    return 2 * (devices - 1) / devices


def _sum_bytes(agent: SequenceAgent) -> int:
    return 8 if jnp.dtype(agent.compute_dtype) == jnp.float64 else 4
