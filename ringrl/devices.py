"""Random keys and meshes in the form that RingRL's programs expect."""

import jax


def random_key(seed: int) -> jax.Array:
    """`jax.random.key(seed)`, made so that `JAX_TRANSFER_GUARD=disallow` permits the transfer to the device."""
    with jax.transfer_guard("allow"):
        return jax.random.key(seed)


def with_automatic_axes(mesh: jax.sharding.Mesh) -> jax.sharding.Mesh:
    """The mesh with automatic axes, as RingRL's programs require; JAX's default is explicit axes."""
    kinds = (jax.sharding.AxisType.Auto,) * len(mesh.axis_names)
    return mesh if mesh.axis_types == kinds else jax.sharding.Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)
