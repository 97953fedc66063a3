"""A pre-norm transformer layer with attention as an argument, shared by training and decoding."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ringrl.nn.config import Feedforward, ModelConfig
from ringrl.nn.norm import RMSNorm
from ringrl.nn.projection import Projection
from ringrl.nn.rope import Rotation, apply_rope
from ringrl.ops import blockwise_feedforward
from ringrl.ops.dropout import drop_features

Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # query, key, value -> mixed values


class FeedforwardNetwork(nnx.Module):
    """A two-matrix GELU or three-matrix SiLU (Shazeer 2020, arXiv 2002.05202) network, applied to each token."""

    def __init__(self, config: ModelConfig, linear: Callable[..., Projection]):
        hidden = config.feedforward_width or 4 * config.width
        std_in, std_out = config.width**-0.5, hidden**-0.5 / (2 * config.layers) ** 0.5
        self.gated = config.feedforward is Feedforward.swiglu
        self.up = linear(config.width, hidden, std_in)
        if self.gated:
            self.gate = linear(config.width, hidden, std_in)
        self.down = linear(hidden, config.width, std_out)

    def __call__(self, x: Float[Array, "B C M"]) -> Float[Array, "B C M"]:
        hidden = nnx.silu(self.gate(x)) * self.up(x) if self.gated else nnx.gelu(self.up(x))
        return self.down(hidden)


class Block(nnx.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)); grouped-query attention with rotary positions."""

    def __init__(self, config: ModelConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        linear = functools.partial(Projection, dtype=dtype, rngs=rngs)
        self.config = config
        self.head_size = config.width // config.heads
        self.key_value_heads = config.key_value_heads or config.heads
        std = config.width**-0.5
        self.attention_norm = RMSNorm(config.width, dtype, rngs)
        self.query = linear(config.width, config.width, std)
        self.key = linear(config.width, self.key_value_heads * self.head_size, std)
        self.value = linear(config.width, self.key_value_heads * self.head_size, std)
        self.output = linear(config.width, config.width, std / (2 * config.layers) ** 0.5)
        self.feedforward_norm = RMSNorm(config.width, dtype, rngs)
        self.feedforward = FeedforwardNetwork(config, linear)

    def __call__(
        self,
        x: Float[Array, "B S M"],
        positions: Int[Array, "B S"],
        rotation: Rotation | None,
        attend: Attend,
        dropout_key: jax.Array | None = None,
    ) -> Float[Array, "B S M"]:
        """Apply the layer; `positions` seed the dropout, and `rotation` is their rotary embedding, or None for none."""
        config = self.config
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        normed = self.attention_norm(x)
        query, key, value = (
            projection(normed).reshape(*x.shape[:2], -1, self.head_size)
            for projection in (self.query, self.key, self.value)
        )
        if rotation is not None:
            query, key = (apply_rope(part, rotation) for part in (query, key))
        with jax.named_scope("attention"):
            mixed = attend(query, key, value).reshape(x.shape)
        x = x + drop_features(self.output(mixed), config.residual_dropout, keys[0], positions)

        def feedforward(part: jax.Array) -> jax.Array:
            return self.feedforward(self.feedforward_norm(part))

        with jax.named_scope("feedforward"):
            fed = blockwise_feedforward(feedforward, x, config.feedforward_block_size)
        return x + drop_features(fed, config.residual_dropout, keys[1], positions)
