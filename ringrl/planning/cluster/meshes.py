"""The mesh over a whole cluster that goes with a strategy, where nobody says another."""

import math

from ringrl.ops.config import Strategy
from ringrl.parallel.mesh import MeshConfig


def whole_cluster(strategy: Strategy, width: int, devices: int) -> MeshConfig:
    """All devices along the axis of the strategy: ring, head (of Ulysses), or fsdp.

    Where they do not divide the model's width, parameters would stay whole on each: then as many of them as do, and
    the rest along a second axis, which the ring goes through too (head), or which only splits the batch (data).
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
