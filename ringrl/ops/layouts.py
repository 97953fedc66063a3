"""How the steps of a chain are dealt to devices, so that under a causal mask none works longer than another.

Contiguous: device i has the i-th stretch, and the last device has nearly all of the work. Striped (Brandon et al.
2023, arXiv 2311.09431): step t is on device t mod n. Zigzag (Llama 3, arXiv 2407.21783): of 2n stretches device i
has the i-th from the front and the i-th from the back.
"""

import numpy as np
from jaxtyping import Int

from ringrl.ops.config import Layout


def dealing_order(layout: Layout, steps: int, devices: int) -> Int[np.ndarray, " padded"]:
    """Which step stands at each place of memory, of which device i holds the i-th of equal parts.

    A number of `steps` or more is a place left empty: lengths are filled up to what the layout divides (n, or 2n).
    """
    parts = 2 * devices if layout is Layout.zigzag else devices
    order = np.arange(steps + -steps % parts)
    match layout:
        case Layout.contiguous:
            return order
        case Layout.striped:
            return order.reshape(-1, devices).T.reshape(-1)
        case Layout.zigzag:
            stretches = order.reshape(parts, -1)
            return np.stack([stretches[:devices], stretches[: devices - 1 : -1]], axis=1).reshape(-1)


def undealing_order(order: Int[np.ndarray, " padded"], steps: int) -> Int[np.ndarray, " steps"]:
    """Where in memory each step stands: `dealt[:, undealing_order]` is in order again, without empty places."""
    return np.argsort(order)[:steps]
