"""Rematerialization policies: what the backward pass of a layer keeps and what it recomputes."""

from collections.abc import Callable
from typing import Any

import jax

from ringrl.nn.config import Remat
from ringrl.ops.ring import SAVED_OUTPUT

LAYER_INPUT = "layer_input"  # the checkpoint name by which `offload` finds it


def rematerialize(layer: Callable[..., Any], remat: Remat, *, gathers: bool) -> Callable[..., Any]:
    """Wrap `layer`, the body of a scan, so that its backward pass keeps its input and what `remat` selects.

    `gathers`: the layer gathers sharded parameters; if these were kept, every device would hold those of all layers.
    """
    policies = jax.checkpoint_policies
    match remat:
        case Remat.none:
            return jax.checkpoint(layer, policy=_all_but_gathered) if gathers else layer
        case Remat.dots:
            return jax.checkpoint(layer, policy=policies.dots_with_no_batch_dims_saveable)
        case Remat.attention:
            return jax.checkpoint(layer, policy=policies.save_only_these_names(SAVED_OUTPUT))
        case Remat.layer:
            return jax.checkpoint(layer)
        case Remat.offload:
            policy = policies.save_and_offload_only_these_names(
                names_which_can_be_saved=[],
                names_which_can_be_offloaded=[LAYER_INPUT],
                offload_src="device",
                offload_dst="pinned_host",
            )
            return jax.checkpoint(layer, policy=policy)


def _all_but_gathered(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name != "all_gather"
