"""Conditions for hiding a ring's transfers behind attention, and the expected utilization with longer chains.

The Ring Attention paper's section 3 (Liu, Zaharia and Abbeel 2023, arXiv 2310.01889): while keys and values of c tokens
are transferred, a device attends to as many; the transfer takes no longer if c is at least FLOP/s over bandwidth. With
peak FLOP/s and nominal bandwidths this is a necessary condition, not a proof of overlap.
"""

import dataclasses
import math

from ringrl.ops.config import Layout, Strategy
from ringrl.planning.cluster.targets import Target, fill_specification
from ringrl.planning.plan import Plan
from ringrl.training.config import Precision

BLOCKS_HELD = 6  # per device: query, key and value, the next key and value, the output
PAPER_BYTES = 2  # of a number


@dataclasses.dataclass(frozen=True)
class Minimum:
    """Minimum number of a chain's tokens on one device at which a hop takes no longer than the concurrent attention."""

    block: float  # c: with fewer, computation waits; 0 if nothing is transferred, or a value is unknown
    sequence: float  # 6c: the paper's requirement for a device, which holds six blocks

    def is_met(self, tokens: int) -> bool:
        """Whether a device's tokens of a chain reach one block: in RingRL each hop attends from all of them."""
        return tokens >= self.block

    def is_met_as_the_paper_counts(self, tokens: int) -> bool:
        """Whether they reach six blocks."""
        return tokens >= self.sequence


def minimal_tokens(
    target: Target, *, heads: int = 1, key_heads: int = 1, number_bytes: int = PAPER_BYTES, attended: float = 1.0
) -> Minimum:
    """Compute c >= FLOP/s / bandwidth, and 6c, for a settled target (`fill_specification`).

    Keys and values of c tokens are 2 c K D numbers, and attention of c queries to them takes 4 c^2 H D FLOPs, of which
    the fraction `attended` is computed (half, with an evenly distributed causal mask): c >= FLOP/s / bandwidth x bytes
    / 2 x K / H / attended, the paper's rule for two bytes, K = H and no mask.
    """
    if not (target.peak_flops and target.bandwidth):
        return Minimum(0.0, 0.0)
    block = target.peak_flops / target.bandwidth * number_bytes / PAPER_BYTES * key_heads / heads / attended
    return Minimum(block, BLOCKS_HELD * block)


def plan_minimum(plan: Plan, *, attended: float = 1.0) -> Minimum:
    """The minimum for a plan: tokens of a chain on one device; 0 without a ring.

    As in the paper it counts every link of a device, and hops of the forward pass. In float32 numbers are twice as
    wide, but the peak is still that of bfloat16: an overestimate, if anything. In hybrid attention the devices that
    exchange heads attend together from all their tokens, and repeat keys if there are fewer heads of them than devices.
    """
    sizes, model, strategy = plan.sizes, plan.model, plan.attention.strategy
    ring = {Strategy.ring: sizes["ring"] * sizes["head"], Strategy.hybrid: sizes["ring"]}.get(strategy, 1)
    if ring == 1:
        return Minimum(0.0, 0.0)
    key_heads, exchange = model.key_value_heads or model.heads, sizes["head"] if strategy is Strategy.hybrid else 1
    minimum = minimal_tokens(
        fill_specification(plan.target),
        heads=model.heads,
        key_heads=math.lcm(key_heads, exchange),
        number_bytes=4 if plan.training.precision is Precision.float32 else 2,
        attended=attended,
    )
    return Minimum(minimum.block / exchange, minimum.sequence / exchange)


def hop_minimum(plan: Plan) -> Minimum:
    """The minimum for RingRL's ring: a hop uses one link, and an evenly distributed causal mask halves the work.

    This is for the forward pass. In the backward pass gradients in float32 are transferred as well, 3 times the bytes
    in bfloat16 and 2 in float32, with 2.5 times the FLOPs.
    """
    target = fill_specification(plan.target)
    narrow = dataclasses.replace(plan, target=dataclasses.replace(target, bandwidth=target.hop_bandwidth))
    return plan_minimum(narrow, attended=1.0 if plan.attention.layout is Layout.contiguous else 0.5)


def meets_minimum(plan: Plan, *, attended: float = 1.0) -> bool:
    """Whether a device of a plan has enough tokens of a chain to overlap a hop (`plan_minimum`)."""
    return plan_minimum(plan, attended=attended).is_met(plan.tokens // plan.sequence_devices)


def attention_ratio(width: int, tokens: int, *, gated: bool = True, feedforward_width: int = 0) -> float:
    """FLOPs of attention over those of a layer's matrices, forward, as in the paper: without halving for causality.

    The paper's layer has 12 M^2 parameters: 24 S M^2 FLOPs and 4 S^2 M for attention, a ratio of S / 6M. With a
    `feedforward_width` F, 4 M^2 and 2 or (gated) 3 M F.
    """
    parameters = 12 * width**2
    if feedforward_width:
        parameters = 4 * width**2 + (3 if gated else 2) * width * feedforward_width
    return 4 * tokens * width / (2 * parameters)


def expected_mfu(attention_share: float, *, matrices_mfu: float, attention_mfu: float) -> float:
    """The utilization of a step by attention's share of the FLOPs: a harmonic mean, because times add up.

    The paper states that self-attention has a lower MFU than feed-forward, so longer contexts have a lower one than
    shorter ones, but gives no formula. This is an expectation from two assumed values, not a measurement.
    """
    return 1.0 / ((1.0 - attention_share) / matrices_mfu + attention_share / attention_mfu)
