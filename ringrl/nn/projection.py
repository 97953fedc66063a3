"""A linear projection without bias."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ringrl.ops.projection import project


class Projection(nnx.Module):
    """A float32 kernel (M, N), initialized normal with deviation `std`, without bias; computes in `dtype`."""

    def __init__(self, size_in: int, size_out: int, std: float, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.dtype = dtype
        self.kernel = nnx.Param(nnx.initializers.normal(std)(rngs.params(), (size_in, size_out)))

    def __call__(self, x: Float[Array, "B S M"]) -> Float[Array, "B S N"]:
        """Apply the kernel to each token."""
        return project(x.astype(self.dtype), self.kernel[...].astype(self.dtype))
