"""How the steps of a chain are dealt to devices, so that under a causal mask none works longer than another.

Contiguous: device i has the i-th stretch, and the last device has nearly all of the work. Striped (Brandon et al.
2023, arXiv 2311.09431): step t is on device t mod n. Zigzag (Llama 3, arXiv 2407.21783): of 2n stretches device i
has the i-th from the front and the i-th from the back.
"""

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int

from ringrl.errors import RingRLError
from ringrl.ops.config import Layout

TOKENS_PER_STEP = (1, 2, 3, 4, 5)  # of any agent; they stay together


def dealing_order(layout: Layout, steps: int, devices: int) -> Int[np.ndarray, " padded"]:
    """Which step stands at each place of memory, of which device i holds the i-th of equal parts.

    Tokens are dealt alike: `x[:, order]`, with `positions=order` for `attention`, where the layout divides the length.

    Args:
      layout: the layout of `AttentionConfig`.
      steps: their number.
      devices: n, of the ring.

    Returns:
      A permutation of the steps, filled up to a length that the layout divides (a multiple of n; of 2n for zigzag): a
      number of `steps` or more is a place left empty.
    """
    layout = Layout(layout)  # its name will do
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
    """Where in memory each step stands: `dealt[:, undealing_order]` is in order again, without empty places.

    Args:
      order: of `dealing_order`.
      steps: their number.

    Returns:
      The place of each step.
    """
    return np.argsort(order)[:steps]


def check_dealt(
    positions: Int[Array | np.ndarray, "B S"],
    segments: Int[Array | np.ndarray, "B S"] | None,
    layout: Layout,
    devices: int,
) -> None:
    """Raises RingRLError where steps, or tokens, do not stand as the layout deals them; padding may stand anywhere.

    Results would be right and work uneven, so nothing else shows it. It compares integers, which is as cheap as a
    digest of them: 30 ms for a million. Contiguous takes any order. What a trace or another process holds
    cannot be seen here and passes.
    """
    if layout is Layout.contiguous or devices == 1 or not (_is_known(positions) and _is_known(segments)):
        return
    places = np.asarray(positions)
    padding = np.zeros(places.shape, bool) if segments is None else np.asarray(segments) < 0
    if _is_dealt(places, padding, layout, devices):
        return
    wanted = f"attention.layout={layout} over {devices} devices"
    deal = f"deal it by ringrl.dealing_order({str(layout)!r}, steps, {devices}), the loader's order"
    found = _find_layout(places, padding, devices)
    if found is None:
        raise RingRLError(
            f"the batch was dealt in no known layout, but {wanted}: {deal}, or set attention.layout=contiguous, which "
            "takes any order."
        )
    found_layout, found_devices = found
    if found_layout is not Layout.contiguous and found_devices != devices:
        raise RingRLError(f"the batch was dealt {found_layout} over {found_devices} devices, but {wanted}: {deal}.")
    raise RingRLError(
        f"the batch was dealt {found_layout}, but {wanted}: {deal}, or set attention.layout={found_layout}."
    )


def _is_known(array: jax.Array | np.ndarray | None) -> bool:
    if isinstance(array, Tracer):
        return False
    return not isinstance(array, jax.Array) or array.is_fully_addressable


def _is_dealt(positions: np.ndarray, padding: np.ndarray, layout: Layout, devices: int) -> bool:
    length = positions.shape[1]
    for per_step in TOKENS_PER_STEP:
        order = dealing_order(layout, length // per_step, devices)
        if len(order) * per_step == length:
            tokens = (order[:, None] * per_step + np.arange(per_step)).reshape(-1)
            if ((positions == tokens) | padding).all():
                return True
    return False


def _find_layout(positions: np.ndarray, padding: np.ndarray, devices: int) -> tuple[Layout, int] | None:
    """The layout that a batch was dealt in; if several fit, one over this number of devices."""
    length = positions.shape[1]
    others = [n for n in range(1, min(length, 4096) + 1) if length % n == 0]
    pairs = ((layout, n) for n in (devices, *others) for layout in Layout)
    return next((pair for pair in pairs if _is_dealt(positions, padding, *pair)), None)
