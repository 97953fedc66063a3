"""The default mesh over a whole cluster for an attention strategy."""

import math

from ringrl.ops.config import Strategy
from ringrl.parallel.mesh import MeshConfig


def whole_cluster(strategy: Strategy, width: int, devices: int) -> MeshConfig:
    """All devices along the axis of the strategy: ring, head (of Ulysses), or fsdp.

    If they do not divide the model's width, parameters would be replicated: then as many of them as do divide it, and
    the rest along a second axis, which is part of the ring too (head), or only splits the batch (data).
    """
    dividing = math.gcd(width, devices)
    match strategy:
        case Strategy.ulysses:
            return MeshConfig(head=devices)
        case Strategy.ring:
            return MeshConfig(ring=dividing, head=devices // dividing)
        case Strategy.hybrid:
            return MeshConfig(ring=devices)
        case _:
            return MeshConfig(fsdp=dividing, data=devices // dividing)
