"""One pre-norm transformer layer; how it attends is handed in, so that training and acting share it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ringrl.nn.config import Feedforward, ModelConfig
from ringrl.nn.norm import RMSNorm
from ringrl.nn.rope import apply_rope
from ringrl.ops import blockwise_feedforward

Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # query, key, value -> mixed values


def _linear(size_in: int, size_out: int, std: float, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Linear:
    initializer = nnx.initializers.normal(std)
    return nnx.Linear(size_in, size_out, use_bias=False, kernel_init=initializer, dtype=dtype, rngs=rngs)


def drop(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Inverted dropout; the identity without a key or a rate."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))


class FeedforwardNetwork(nnx.Module):
    """Two matrices and GELU, or three and SiLU (Shazeer 2020, arXiv 2002.05202), over tokens one by one."""

    def __init__(self, config: ModelConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        hidden = config.feedforward_width or 4 * config.width
        std_in, std_out = config.width**-0.5, hidden**-0.5 / (2 * config.layers) ** 0.5
        self.gated = config.feedforward is Feedforward.swiglu
        self.up = _linear(config.width, hidden, std_in, dtype, rngs)
        if self.gated:
            self.gate = _linear(config.width, hidden, std_in, dtype, rngs)
        self.down = _linear(hidden, config.width, std_out, dtype, rngs)

    def __call__(self, x: Float[Array, "B C M"]) -> Float[Array, "B C M"]:
        hidden = nnx.silu(self.gate(x)) * self.up(x) if self.gated else nnx.gelu(self.up(x))
        return self.down(hidden)


class Block(nnx.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)); grouped-query attention with rotary positions."""

    def __init__(self, config: ModelConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        self.head_size = config.width // config.heads
        self.key_value_heads = config.key_value_heads or config.heads
        std = config.width**-0.5
        self.attention_norm = RMSNorm(config.width, dtype, rngs)
        self.query = _linear(config.width, config.width, std, dtype, rngs)
        self.key = _linear(config.width, self.key_value_heads * self.head_size, std, dtype, rngs)
        self.value = _linear(config.width, self.key_value_heads * self.head_size, std, dtype, rngs)
        self.output = _linear(config.width, config.width, std / (2 * config.layers) ** 0.5, dtype, rngs)
        self.feedforward_norm = RMSNorm(config.width, dtype, rngs)
        self.feedforward = FeedforwardNetwork(config, dtype, rngs)

    def __call__(
        self,
        x: Float[Array, "B S M"],
        positions: Int[Array, "B S"],
        attend: Attend,
        dropout_key: jax.Array | None = None,
    ) -> Float[Array, "B S M"]:
        """One layer; `positions` are token positions, used by the rotary embedding alone."""
        config = self.config
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        normed = self.attention_norm(x)
        query, key, value = (
            projection(normed).reshape(*x.shape[:2], -1, self.head_size)
            for projection in (self.query, self.key, self.value)
        )
        if config.rope:
            query, key = (apply_rope(part, positions, config.rope_base) for part in (query, key))
        mixed = attend(query, key, value).reshape(x.shape)
        x = x + drop(self.output(mixed), config.residual_dropout, keys[0])

        def feedforward(part: jax.Array) -> jax.Array:
            return self.feedforward(self.feedforward_norm(part))

        fed = blockwise_feedforward(feedforward, x, config.feedforward_block_size)
        return x + drop(fed, config.residual_dropout, keys[1])
