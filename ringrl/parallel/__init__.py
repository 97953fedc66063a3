"""The device mesh, and what lies where on it."""

from ringrl.parallel.mesh import MeshConfig as MeshConfig
from ringrl.parallel.mesh import make_mesh as make_mesh
