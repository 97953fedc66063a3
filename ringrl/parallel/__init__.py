"""The device mesh, and the sharding of parameters and batches over it."""

from typing import TYPE_CHECKING

from ringrl.lazy import on_demand

if TYPE_CHECKING:
    from ringrl.parallel.mesh import MeshConfig as MeshConfig
    from ringrl.parallel.mesh import make_mesh as make_mesh

__getattr__ = on_demand(
    globals(),
    {
        "mesh": "MeshConfig make_mesh",
    },
)
