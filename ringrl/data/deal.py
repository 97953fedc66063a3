"""Whole batches laid out in memory as the devices of a ring are to hold them: the reference of slices."""

import dataclasses

import numpy as np
from jaxtyping import Int

from ringrl.types import Chain

PADDING = {"segment_ids": -1}  # belongs to no segment; all else is 0


def deal_chain(chain: Chain, order: Int[np.ndarray, " padded"]) -> Chain:
    """Every array (B, P, ...) with the step `order[p]` at place p; padding where there is no such step.

    It holds the whole batch twice. Training never calls it, since `ChainSampler.batch` builds a dealt slice from the
    store: this is the reference for that in tests.
    """

    def dealt(name: str, values: np.ndarray) -> np.ndarray:
        extra = len(order) - values.shape[1]
        widths = ((0, 0), (0, extra), *((0, 0),) * (values.ndim - 2))
        return np.pad(values, widths, constant_values=PADDING.get(name, 0))[:, order]

    fields = {field.name: getattr(chain, field.name) for field in dataclasses.fields(chain)}
    return Chain(**{name: dealt(name, np.asarray(values)) for name, values in fields.items()})
