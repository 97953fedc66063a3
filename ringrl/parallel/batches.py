"""The shard of a batch on each device, and global batches assembled from the shards that each process has built."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Int

from ringrl.devices import with_automatic_axes
from ringrl.errors import RingRLError
from ringrl.types import BATCH_AXES, SEQUENCE_AXES, Chain


class BatchParts:
    """The shards of a batch of `chains` chains over a mesh: chains over data x fsdp, memory positions over ring x head.

    `order` (P,) is the step at each memory position (`ringrl.ops.step_order`). `parts` lists, for each device of this
    process, its chains and the step at each of its positions; `join` assembles the arrays built from them.

    Raises `RingRLError` if the chains do not divide among data x fsdp devices, ValueError if the positions do not
    divide among ring x head.
    """

    def __init__(self, mesh: jax.sharding.Mesh, chains: int, order: Int[np.ndarray, " P"]) -> None:
        self._check(mesh, chains, len(order))
        self.shape = (chains, len(order))
        self.sharding = NamedSharding(with_automatic_axes(mesh), PartitionSpec(BATCH_AXES, SEQUENCE_AXES))
        indices = self.sharding.addressable_devices_indices_map(self.shape)
        self.devices = list(indices)
        self.parts: list[tuple[slice, np.ndarray]] = []
        for index in indices.values():
            rows, columns = index or (slice(None), slice(None))
            # A copy of the columns, so that the whole order can be freed.
            self.parts.append((slice(*rows.indices(chains)), order[columns].copy()))

    def join(self, parts: Sequence[Chain]) -> Chain:
        """Assemble the batch as global arrays (B, P, ...) from this process's shards, in the order of `self.parts`."""
        placed = [jax.device_put(part, device) for part, device in zip(parts, self.devices, strict=True)]

        def joined(*arrays: jax.Array) -> jax.Array:
            shape = (*self.shape, *arrays[0].shape[2:])
            return jax.make_array_from_single_device_arrays(shape, self.sharding, list(arrays))

        return jax.tree.map(joined, *placed)

    @staticmethod
    def _check(mesh: jax.sharding.Mesh, chains: int, places: int) -> None:
        replicas, devices = (math.prod(mesh.shape[axis] for axis in axes) for axes in (BATCH_AXES, SEQUENCE_AXES))
        if chains % replicas:
            raise RingRLError(
                f"training.batch_size={chains} does not divide among mesh.data x mesh.fsdp = {replicas} devices: "
                f"set it to a multiple of {replicas}, or make the mesh smaller."
            )
        if places % devices:
            raise ValueError(f"{places} places do not divide among {devices} devices: use ringrl.ops.step_order")
