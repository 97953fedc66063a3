"""Random keys and meshes in the form that RingRL's programs take them."""

import jax


def random_key(seed: int) -> jax.Array:
    """`jax.random.key(seed)`, whose transfer to the device `JAX_TRANSFER_GUARD=disallow` lets through."""
    with jax.transfer_guard("allow"):
        return jax.random.key(seed)


def with_automatic_axes(mesh: jax.sharding.Mesh) -> jax.sharding.Mesh:
    """The mesh with automatic axes, which RingRL's programs are written for; JAX's default is explicit axes."""
    kinds = (jax.sharding.AxisType.Auto,) * len(mesh.axis_names)
    return mesh if mesh.axis_types == kinds else jax.sharding.Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)
