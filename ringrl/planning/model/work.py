"""FLOPs of a training step: those the model needs, recomputation, and waits in the ring.

Attention is counted in the pairs of blocks that the `xla` kernel computes, every pair with at least one query that may
attend to a key; fused kernels use smaller blocks, so for them the counts are upper bounds.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from ringrl.agents.action_heads import make_head
from ringrl.agents.layout import token_layout
from ringrl.nn.config import Feedforward, Remat
from ringrl.ops.config import AttentionConfig, Kernel, Layout, Strategy
from ringrl.ops.operands import LocalOptions
from ringrl.ops.pieces import piece_count
from ringrl.planning.plan import Plan

FORWARD = 4.0  # FLOPs per query, key and feature: scores, and mixed values
BACKWARD = 10.0  # recomputed scores, and the gradients of weights, queries, keys and values
_DENSE_BACKWARD = 8.0  # attention weights are kept


class Blocks(NamedTuple):
    """Pairs of blocks that each device of a ring computes, by chunk of the keys and hop; and the sizes of a block."""

    pairs: Int[np.ndarray, "devices pieces hops"]
    query_size: int
    key_size: int

    @property
    def total(self) -> float:
        """Pairs of a query and a key, over all devices."""
        return float(self.pairs.sum()) * self.query_size * self.key_size

    @property
    def busiest(self) -> float:
        """Pairs on the device with the most."""
        return float(self.pairs.sum(axis=(1, 2)).max()) * self.query_size * self.key_size

    @property
    def critical(self) -> float:
        """Pairs on the slowest device of every hop: keys move synchronously, so the other devices wait for it."""
        return float(self.pairs.max(axis=0).sum()) * self.query_size * self.key_size


@dataclasses.dataclass(frozen=True)
class Work:
    """FLOPs of one training step: over all devices unless noted."""

    matrices: float  # 6 per matrix parameter and token: forward, and twice that backward
    matrices_again: float  # one more forward pass, if layers are recomputed
    attention: float  # of queries with their visible keys, forward and backward, without recomputation
    attention_computed: float  # in blocks, including masked parts, and with recomputation
    busiest_attention: float  # of that, on the device with the most
    critical_attention: float  # of a device that is the slowest in every hop of the ring
    devices: int

    @property
    def needed(self) -> float:
        """The FLOPs that `train_flops` counts."""
        return self.matrices + self.attention

    @property
    def computed(self) -> float:
        """All computed FLOPs."""
        return self.matrices + self.matrices_again + self.attention_computed

    @property
    def critical_path(self) -> float:
        """FLOPs of one device, with waits in the ring counted as work."""
        return (self.matrices + self.matrices_again) / self.devices + self.critical_attention

    @property
    def useful_attention(self) -> float:
        """The fraction of the computed attention that is needed."""
        return self.attention / self.attention_computed

    @property
    def balance(self) -> float:
        """The mean device's attention over the critical path's: 1 if none waits."""
        return self.attention_computed / self.devices / self.critical_attention


def step_work(plan: Plan) -> Work:
    """FLOPs of one step of a plan on a mesh, for chains without padding distributed as `attention.layout` states.

    Not counted: norms, activations, the optimizer and the two or three products of an embedding's gradient that are not
    computed; `matrices` counts the embedding like any matrix. Raises RingRLError if the mesh does not match the target.
    """
    sizes, model, strategy = plan.sizes, plan.model, plan.attention.strategy
    ring, head = _ring_and_head(strategy, sizes["ring"], sizes["head"])
    blocks = block_pairs(plan.attention, plan.tokens, plan.tokens_per_step, ring=ring, head=head)
    devices = math.prod(sizes.values())
    local_chains = plan.chains / (sizes["data"] * sizes["fsdp"])
    by_pair = model.width * model.layers  # features of all heads
    passes = _attention_passes(strategy, model.remat)
    on_device = by_pair * passes * local_chains / head
    layer, again, steps = _matrices(plan)
    return Work(
        matrices=6.0 * plan.chains * (layer * model.layers * plan.tokens + steps * plan.tokens / plan.tokens_per_step),
        matrices_again=2.0 * plan.chains * again * model.layers * plan.tokens,
        attention=3.0 * FORWARD * plan.chains * by_pair * plan.tokens * (plan.tokens + 1) / 2,
        attention_computed=by_pair * passes * plan.chains * blocks.total,
        busiest_attention=on_device * blocks.busiest,
        critical_attention=on_device * blocks.critical,
        devices=devices,
    )


def block_pairs(
    attention: AttentionConfig, tokens: int, tokens_per_step: int = 1, *, ring: int = 1, head: int = 1
) -> Blocks:
    """Count the pairs of one causal chain over `ring` devices, `head` of which exchange heads for each one's tokens.

    In every layout the tokens of a device are in order, with padding last, so a block's first and last unpadded tokens
    are its range: a pair is computed if the keys' block begins no later than the queries' block ends.
    """
    if attention.strategy is Strategy.dense:
        return Blocks(np.ones((1, 1, 1), int), tokens, tokens)
    layout = attention.layout if attention.strategy.is_sharded else Layout.contiguous
    steps = tokens // tokens_per_step
    steps += -steps % (ring * head * (2 if layout is Layout.zigzag else 1))
    length = steps // ring * tokens_per_step  # of one device of the ring
    device = np.arange(ring)[:, None]
    valid = _valid_places(layout, tokens // tokens_per_step, steps, ring)[:, None] * tokens_per_step

    def position(place: np.ndarray) -> np.ndarray:
        step, slot = np.divmod(place, tokens_per_step)
        return _step_at(layout, steps, ring, device, step) * tokens_per_step + slot

    query_size = min(attention.query_block_size, length)
    starts = np.arange(0, length, query_size)[None]
    ends = np.minimum(starts + query_size, valid)
    highs = np.where(starts < valid, position(np.maximum(ends - 1, 0)), -1)

    options = LocalOptions(True, None, 0.0, attention.query_block_size, attention.key_block_size, Kernel.xla)
    pieces = piece_count(length, options)
    halves = min(pieces, 2)
    share = length // (halves * pieces)  # of each half, in one chunk
    key_size = min(attention.key_block_size, halves * share)
    half, within = np.divmod(np.arange(0, halves * share, key_size), share)
    places = (half * (length // halves) + within + share * np.arange(pieces)[:, None]).reshape(1, -1)
    lows = np.where(places < valid, position(places), np.iinfo(np.int64).max)

    seen = _count_seen(highs, lows.reshape(ring, pieces, -1))
    hops = (device - np.arange(ring)) % ring  # the source of each hop's keys
    return Blocks(np.swapaxes(seen[device, hops], 1, 2), query_size, key_size)


def _count_seen(highs: Int[np.ndarray, "n Q"], lows: Int[np.ndarray, "n pieces T"]) -> Int[np.ndarray, "n n pieces"]:
    """Count, by device of the queries, device of the keys, and chunk, the pairs of blocks in which a key is visible."""
    order = np.argsort(lows, axis=None)
    ordered = lows.reshape(-1)[order]
    seen = np.empty((len(highs), *lows.shape[:2]), np.int64)
    by_block = np.empty(lows.size, np.int64)
    for device, ends in enumerate(highs):
        reached = np.searchsorted(ordered, ends, side="right")  # key blocks that begin early enough, for each end
        by_block[order] = len(ends) - np.cumsum(np.bincount(reached, minlength=lows.size))[: lows.size]
        seen[device] = by_block.reshape(lows.shape).sum(axis=-1)
    return seen


def _step_at(layout: Layout, steps: int, ring: int, device: np.ndarray, place: np.ndarray) -> np.ndarray:
    """`ringrl.ops.dealing_order` at one position of a device, without computing the whole order."""
    part = steps // ring
    match layout:
        case Layout.contiguous:
            return device * part + place
        case Layout.striped:
            return device + ring * place
        case Layout.zigzag:
            stretch = part // 2
            late = (2 * ring - 1 - device) * stretch + place - stretch
            return np.where(place < stretch, device * stretch + place, late)


def _valid_places(layout: Layout, wanted: int, steps: int, ring: int) -> Int[np.ndarray, " n"]:
    """Number of positions of each device that hold a step; the last `steps - wanted` steps are padding."""
    device, part = np.arange(ring), steps // ring
    match layout:
        case Layout.contiguous:
            return np.clip(wanted - device * part, 0, part)
        case Layout.striped:
            return np.clip(-((device - wanted) // ring), 0, part)
        case Layout.zigzag:
            stretch = part // 2
            early, late = device * stretch, (2 * ring - 1 - device) * stretch
            return np.clip(wanted - early, 0, stretch) + np.clip(wanted - late, 0, stretch)


def _ring_and_head(strategy: Strategy, ring: int, head: int) -> tuple[int, int]:
    """Number of devices in a ring, and of devices that exchange heads, as in `ringrl.ops.sharded`."""
    match strategy:
        case Strategy.ring:
            return ring * head, 1
        case Strategy.ulysses:
            return 1, ring * head
        case Strategy.hybrid:
            return ring, head
        case _:
            return 1, 1


def _attention_passes(strategy: Strategy, remat: Remat) -> float:
    """FLOPs per query, key and feature in a step: `remat=attention` keeps values named by the ring, not by dense."""
    dense = strategy is Strategy.dense
    kept = remat is Remat.none or (remat is Remat.attention and not dense)
    return FORWARD * (1 if kept else 2) + (_DENSE_BACKWARD if dense else BACKWARD)


def _matrices(plan: Plan) -> tuple[float, float, float]:
    """Matrix parameters: of a layer; of those recomputed in a layer; of those outside layers."""
    model, spec = plan.model, plan.data.spec
    hidden = model.feedforward_width or 4 * model.width
    keys = (model.key_value_heads or model.heads) * (model.width // model.heads)
    gates = 2 if model.feedforward is Feedforward.swiglu else 1
    mixing = model.width * (2 * model.width + 2 * keys)
    rising = gates * model.width * hidden
    keeps = model.remat in (Remat.none, Remat.dots)
    again = 0 if keeps else mixing + rising  # no operation depends on the last product
    sizes = {
        "observation": spec.observation_size,
        "action": spec.action.size,
        "previous_action": spec.action.size + 1,  # with a flag
    }
    fields = (field for slot in token_layout(plan.agent).slots for field in slot)
    embedding = sum(sizes.get(field, 1) for field in fields) * model.width
    action = model.width * make_head(plan.agent, spec.action).output_size
    return mixing + rising + hidden * model.width, again, embedding + action
