"""The arrays in memory while a layer is differentiated, and how many of each a compiler keeps.

The counts were read off programs that the targets' compilers made: a 7B step over eight A100 (`buffer-assignment` dumps
of XLA), four TPU v4 and 32 TPU v3 (their scheduled texts), and the CPU's rows of experiments/scaling. They differ
between compilers: NVIDIA's peels a loop's first iteration, so that sums coexist with their initial zeros; a TPU's keeps
scores in the core's own memory and casts all layers' parameters ahead of the loop over them; a CPU's computes bfloat16
in float32.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ringrl.nn.config import Feedforward
from ringrl.ops.config import Strategy
from ringrl.ops.kernels import choose_kernel
from ringrl.ops.operands import LocalOptions
from ringrl.ops.pieces import piece_count
from ringrl.planning.cluster.targets import read_topology
from ringrl.planning.cluster.topology import GPUS
from ringrl.planning.model.parameters import ParameterCounts, feedforward_width, key_value_heads, parameter_counts
from ringrl.planning.plan import Plan

WIDE = 4  # bytes of float32
_LANES = 128  # of a TPU's vector: arrays whose last axis is shorter are padded


@dataclasses.dataclass(frozen=True)
class Compiler:
    """How many arrays of each kind a compiler's program holds at once, during the last hop of the keys."""

    activations: float  # (T, M), compute dtype: layer input, normed, query, mixed, and gradients of these
    keys: float  # (T, K D), operands: keys, values and their gradients
    query_gradients: float  # (T, M), float32: the sum so far, this hop's contribution, and its initial zeros
    key_gradients: float  # (T / p, K D), float32: in transfer, received, this hop's, stacked by block, and zeros
    hop_gradients: float  # the part of these that exists only with hops
    pieces: float  # (T / p, K D), operands: current, and in transfer
    scores: float  # (H, c, c), float32: a pair of blocks' products, weights and gradients
    feedforward_gradients: float  # of a layer's feed-forward matrices, whole, float32
    attention_gradients: float  # of its other matrices
    wide_parameters: float  # of the feed-forward's gathered matrices, float32, during its differentiation
    outputs: float  # (T, M), float32, at the same time: attention's output, and zeros for its gradients' sums
    operands: float = 0.0  # (T, M), operands: the activations that only products read
    dealt: float = 0.0  # (T, K D), compute dtype: copies from which chunks are taken
    narrow_scores: float = 0.0  # (H, c, c), compute dtype
    gathered: bool = False  # whether the feed-forward's gathered matrices outlive it
    hoisted: bool = False  # whether all layers' parameters are cast before the loop over layers
    code: int = 0  # bytes of the program


COMPILERS = {
    "cuda": Compiler(
        activations=8,
        keys=4,
        query_gradients=3,
        key_gradients=7,
        hop_gradients=4,
        pieces=4,
        scores=2,
        narrow_scores=2,
        feedforward_gradients=2,
        attention_gradients=1,
        wide_parameters=1,
        outputs=2,
    ),
    "tpu": Compiler(
        activations=5,
        operands=2,  # query and mixed
        keys=4,
        query_gradients=2,
        key_gradients=6,
        hop_gradients=2,
        pieces=4,
        scores=0,  # they stay in the core's own memory
        feedforward_gradients=1,
        attention_gradients=0,
        wide_parameters=0,
        outputs=1,
        gathered=True,
        hoisted=True,
        code=48 * 2**20,
    ),
    "cpu": Compiler(
        activations=8,
        keys=4,
        query_gradients=3,
        key_gradients=4,
        hop_gradients=2,
        pieces=2,
        scores=2,
        feedforward_gradients=2,
        attention_gradients=1,
        wide_parameters=1,
        outputs=2,
        dealt=4,
    ),
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Bytes of one array of each kind, on one device."""

    compiler: Compiler
    counts: ParameterCounts
    bytes: int  # b
    wide: int  # bytes of activations, which a CPU's program widens
    operand: int  # bytes of operands: a TPU multiplies float32 in bfloat16, by JAX's default precision
    tokens: int  # T, of the chains that are computed at once
    width: int  # T M numbers
    keys: int  # T K D numbers
    pieces: int  # p
    hops: bool
    scores: int  # numbers of a pair of blocks


def while_attention(plan: Plan, sizes: Sizes) -> dict[str, float]:
    """Memory while attention of a layer is differentiated and keys of other devices are transferred.

    Of the surrounding layer: activations, and the whole gradients of the feed-forward's matrices, computed before, in
    float32; parameters gathered in the compute dtype. Dense attention has scores of all pairs instead of blocks and
    chunks: weights, and the inputs of their products and gradients.
    """
    compiler, counts = sizes.compiler, sizes.counts
    around = {
        "activations": (compiler.activations * sizes.wide + compiler.operands * sizes.operand) * sizes.width,
        "layer's gradients": WIDE
        * (compiler.feedforward_gradients * counts.feedforward + compiler.attention_gradients * counts.attention),
        "parameters gathered": sizes.operand * (counts.attention + compiler.gathered * counts.feedforward),
    }
    if plan.attention.strategy is Strategy.dense:
        pairs = sizes.tokens * plan.tokens * plan.model.heads
        return {**around, "keys and values": 4 * sizes.operand * sizes.keys, "scores": (3 * WIDE + sizes.bytes) * pairs}
    copies = compiler.dealt * sizes.bytes if sizes.pieces > 1 else 0
    hops = compiler.key_gradients - (0 if sizes.hops else compiler.hop_gradients)
    under_way = compiler.pieces if sizes.hops else compiler.pieces / 2
    return {
        **around,
        "keys and values": (compiler.keys * sizes.operand + copies) * sizes.keys,
        "query gradients": compiler.query_gradients * WIDE * sizes.width,
        "gradients of keys in flight": hops * WIDE * sizes.keys / sizes.pieces,
        "keys in flight": under_way * sizes.operand * sizes.keys / sizes.pieces,
        "scores of a block": (compiler.scores * WIDE + compiler.narrow_scores * sizes.bytes) * sizes.scores,
    }


def while_feedforward(plan: Plan, sizes: Sizes) -> dict[str, float]:
    """Memory while a layer's feed-forward is differentiated, a block of c tokens at a time or all at once.

    Intermediates, in the compute dtype: the outputs of each matrix before the last, their product, and the gradients of
    these: 7 c F gated, 5 c F else. Gradients of its matrices, in float32: the sum, a block's, and zeros.
    """
    compiler, counts, model = sizes.compiler, sizes.counts, plan.model
    block = model.feedforward_block_size
    chains = max(sizes.tokens * plan.sequence_devices // plan.tokens, 1)
    blocked = 0 < block < sizes.tokens // chains
    at_once = block * chains if blocked else sizes.tokens
    inside = 7 if model.feedforward is Feedforward.swiglu else 5
    return {
        "activations": ((compiler.activations + 1) * sizes.wide + compiler.operands * sizes.operand) * sizes.width,
        "keys and values": 2 * sizes.operand * sizes.keys,
        "attention's output": compiler.outputs * WIDE * sizes.width,
        "feed-forward's insides": inside * sizes.wide * at_once * feedforward_width(model),
        "layer's gradients": WIDE
        * (compiler.feedforward_gradients * counts.feedforward + compiler.attention_gradients * counts.attention),
        "parameters gathered": sizes.operand * (counts.attention + compiler.gathered * counts.feedforward)
        + WIDE * compiler.wide_parameters * counts.feedforward,
    }


def compute_sizes(plan: Plan) -> Sizes:
    model, mesh, strategy = plan.model, plan.sizes, plan.attention.strategy
    compiler = COMPILERS[plan.target.platform]
    number_bytes = jnp.dtype(plan.training.precision.value).itemsize
    tokens = plan.tokens_per_device // plan.training.gradient_accumulation
    head_devices = 1
    if strategy is Strategy.ulysses:
        head_devices = mesh["ring"] * mesh["head"]
    elif strategy is Strategy.hybrid:
        head_devices = mesh["head"]
    ring_devices = plan.sequence_devices // head_devices
    ring_tokens = plan.tokens // ring_devices
    heads, head_size, key_heads = model.heads // head_devices, model.width // model.heads, key_value_heads(model)
    key_heads *= head_devices // math.gcd(key_heads, head_devices)  # repeated if they are fewer than the devices
    stored = head_size
    if plan.target.platform == "tpu":
        stored = head_size + -head_size % _LANES
    blocks = plan.attention.query_block_size, plan.attention.key_block_size
    options = LocalOptions(True, None, model.attention_dropout, *blocks, plan.attention.kernel)
    pieces = 1
    if strategy is not Strategy.dense:
        query: Any = jax.ShapeDtypeStruct((1, ring_tokens, heads, head_size), jnp.dtype(plan.training.precision.value))
        kernel = choose_kernel(options, _device(plan), query, ring_tokens)
        pieces = piece_count(ring_tokens, options._replace(kernel=kernel))
    query_block, key_block = (min(block, ring_tokens) for block in blocks)
    chains = max(tokens * plan.sequence_devices // plan.tokens, 1)
    return Sizes(
        compiler=compiler,
        counts=parameter_counts(plan),
        bytes=number_bytes,
        wide=WIDE if plan.target.platform == "cpu" else number_bytes,
        operand=min(number_bytes, 2) if plan.target.platform == "tpu" else number_bytes,
        tokens=tokens,
        width=tokens * model.width,
        keys=tokens * key_heads * stored,
        pieces=pieces,
        hops=ring_devices > 1,
        scores=chains * heads * query_block * key_block,
    )


class _Device(NamedTuple):
    """The properties of a target's device that determine the choice of a kernel."""

    platform: str
    device_kind: str
    compute_capability: str = ""


def _device(plan: Plan) -> Any:
    kind = read_topology(plan.target.topology).kind
    capability = f"{GPUS[kind].capability}.0" if kind in GPUS else ""
    return _Device(plan.target.platform, f"TPU {kind}" if plan.target.platform == "tpu" else kind, capability)
