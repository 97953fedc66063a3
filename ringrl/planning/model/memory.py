"""Closed-form estimate of a training step's memory per device, for any cluster and without a compiler.

Memory peaks at one of three moments of the backward pass: a layer's attention, a layer's feed-forward, or the
optimizer. The live arrays at each have sizes that follow from the plan; how many of each kind a compiler keeps was
counted in the programs of the compilers for TPU, NVIDIA and CPU (`ringrl.planning.model.moments`). The maximum over the
moments is the step's. `experiments/memory_formula` compares the sums with the compilers' reports.

Letters are those of `ringrl.types`; T tokens on a device, N devices that share parameters, b bytes of the compute
dtype, c tokens of a block, p pieces (chunks) of a device's keys and values (`ringrl.ops.pieces`).
"""

import dataclasses
import math
from collections.abc import Mapping

from ringrl.nn.config import Feedforward, Remat
from ringrl.ops.config import Strategy
from ringrl.planning.model.moments import WIDE, Sizes, compute_sizes, while_attention, while_feedforward
from ringrl.planning.model.parameters import ParameterCounts, feedforward_width, numbers_of_step
from ringrl.planning.plan import MAX_TOKENS, Plan
from ringrl.training.config import Precision

_FEWEST_TOKENS = 256  # on a device


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Bytes on one device by purpose; `moment` is the moment of the backward pass with the maximum."""

    argument_terms: Mapping[str, int]
    temporary_terms: Mapping[str, int]  # live at that moment
    moment: str

    @property
    def terms(self) -> dict[str, int]:
        """All terms in decreasing order."""
        return dict(sorted({**self.argument_terms, **self.temporary_terms}.items(), key=lambda item: -item[1]))

    @property
    def arguments(self) -> int:
        """Parameters, optimizer state and batch; the new state replaces the old in place."""
        return sum(self.argument_terms.values())

    @property
    def temporaries(self) -> int:
        """All other memory."""
        return sum(self.temporary_terms.values())

    @property
    def total(self) -> int:
        """Total at the peak."""
        return self.arguments + self.temporaries


def predict_memory(plan: Plan) -> Prediction:
    """Predict the memory of a plan's step on a device; raises RingRLError if plan, mesh and target do not match."""
    sizes = compute_sizes(plan)
    persistent = _persistent(plan, sizes)
    moments = {
        "attention": while_attention(plan, sizes),
        "feed-forward": while_feedforward(plan, sizes),
        "optimiser": {"updates": WIDE * sizes.counts.on_device},
    }
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    terms = {name: int(size) for name, size in {**persistent, **moments[moment]}.items() if size}
    return Prediction(_arguments(plan, sizes.counts), terms, moment)


def largest_context(plan: Plan) -> int:
    """Tokens of the longest chain, a power of two adjusted by `Plan.of`, that fits by the formula; 0 if none.

    Chains of fewer than 256 tokens per device are not considered, because fused kernels do not support them.
    """
    tokens = 2 ** math.ceil(math.log2(_FEWEST_TOKENS * plan.sequence_devices))
    found = 0
    while tokens <= MAX_TOKENS // 2 + 1:
        longer = plan.of(tokens)
        if longer.tokens > found:
            if predict_memory(longer).total > plan.target.memory:
                break
            found = longer.tokens
        tokens *= 2
    return found


def _arguments(plan: Plan, counts: ParameterCounts) -> dict[str, int]:
    """Parameters and Adam's two moments, 12 bytes per parameter, and the batch's fields that the agent reads."""
    steps = plan.tokens_per_device // plan.tokens_per_step
    return {
        "parameters": WIDE * counts.on_device,
        "optimiser": 2 * WIDE * counts.on_device,
        "batch": WIDE * steps * numbers_of_step(plan),
    }


def _persistent(plan: Plan, sizes: Sizes) -> dict[str, float]:
    """Memory that is live from the forward pass, or the beginning of the backward pass, to the end of the layers.

    - kept: layer inputs L b T M, and the activations that `model.remat` keeps: with `attention` its output in float32
      and a logsumexp of each head; with `dots` queries, keys, values and the products of the output and feed-forward
      matrices; with `none` everything that derivatives read (about 14 T M, and 5 to 13 T F). With `offload` nothing:
      inputs are in host memory.
    - rotation: cosines and sines, 8 T D.
    - gradients: of all parameters on this device, 4 P / N, or half in bfloat16; and twice if the batch is split.
    - cast: parameters in the compute dtype, b P / N, if the compiler casts those of all layers before the loop over
      them.
    """
    model, training = plan.model, plan.training
    head_size = model.width // model.heads
    narrow = training.gradient_precision is Precision.bfloat16
    gradients = (2 if narrow else WIDE) * sizes.counts.on_device
    if training.gradient_accumulation > 1:
        gradients += WIDE * sizes.counts.on_device
    cast = sizes.compiler.hoisted and sizes.bytes < WIDE
    return {
        "layer inputs": sizes.wide * sizes.width * _layers_kept(plan),
        "kept by remat": model.layers * _kept(plan, sizes),
        "rotation": 2 * WIDE * sizes.tokens * head_size if model.rope else 0,
        "gradients": gradients,
        "parameters cast": sizes.bytes * sizes.counts.on_device if cast else 0,
        "program": sizes.compiler.code,
    }


def _layers_kept(plan: Plan) -> int:
    offloaded = plan.model.remat is Remat.offload and plan.target.platform != "cpu"  # XLA for CPUs has no host space
    return 0 if offloaded else plan.model.layers  # the current one is among the activations


def _kept(plan: Plan, sizes: Sizes) -> float:
    """Bytes kept per layer besides its input."""
    model = plan.model
    up = 2 if model.feedforward is Feedforward.swiglu else 1
    hidden = sizes.tokens * feedforward_width(model)
    dense = plan.attention.strategy is Strategy.dense
    attention = 0 if dense else WIDE * (sizes.width + sizes.tokens * model.heads)
    match model.remat:
        case Remat.attention:
            return attention
        case Remat.dots:
            return sizes.wide * (2 * sizes.width + 2 * sizes.keys + up * hidden)
        case Remat.none:
            inside = 1 + (6 if model.feedforward_block_size else 4) * up  # blocks keep more: see `Remat`
            return sizes.wide * (14 * sizes.width + inside * hidden) + attention
        case _:
            return 0.0
