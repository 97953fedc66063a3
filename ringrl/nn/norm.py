"""Root mean square normalization (Zhang and Sennrich 2019, arXiv 1910.07467)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ringrl.ops.precision import accumulator_dtype

EPSILON = 1e-6


class RMSNorm(nnx.Module):
    """Divides tokens by the root mean square of their features and applies a learned scale, in at least float32."""

    def __init__(self, width: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.dtype = dtype
        self.scale = nnx.Param(nnx.initializers.ones(rngs.params(), (width,)))

    def __call__(self, x: Float[Array, "B S M"]) -> Float[Array, "B S M"]:
        """The normalized tokens in the module's dtype."""
        wide = x.astype(accumulator_dtype(x))
        inverse = jax.lax.rsqrt(jnp.square(wide).mean(axis=-1, keepdims=True) + EPSILON)
        return (wide * inverse * self.scale[...].astype(wide.dtype)[None, None]).astype(self.dtype)
