"""Reordering of whole batches into the memory layout of a ring: the reference implementation for tests."""

import dataclasses

import numpy as np
from jaxtyping import Int

from ringrl.types import Chain

PADDING = {"segment_ids": -1}  # belongs to no segment; all other fields are padded with 0


def reorder_chain(chain: Chain, order: Int[np.ndarray, " padded"]) -> Chain:
    """Reorder every array (B, P, ...) so that position p holds step `order[p]`; padding if there is no such step.

    It needs memory for two copies of the batch. Training never calls it, because `ChainSampler.batch` builds a shard in
    its layout directly from the store; tests compare that with this reference.
    """

    def dealt(name: str, values: np.ndarray) -> np.ndarray:
        extra = len(order) - values.shape[1]
        widths = ((0, 0), (0, extra), *((0, 0),) * (values.ndim - 2))
        return np.pad(values, widths, constant_values=PADDING.get(name, 0))[:, order]

    fields = {field.name: getattr(chain, field.name) for field in dataclasses.fields(chain)}
    return Chain(**{name: dealt(name, np.asarray(values)) for name, values in fields.items()})
