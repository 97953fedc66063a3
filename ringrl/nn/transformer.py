"""A stack of pre-norm layers, as a scan; `ringrl.nn.decoding` runs it against a key-value cache."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from ringrl.nn.block import Block
from ringrl.nn.config import ModelConfig
from ringrl.nn.norm import RMSNorm
from ringrl.nn.remat import LAYER_INPUT, rematerialize
from ringrl.nn.rope import Rotation, rope_rotation
from ringrl.ops import AttentionConfig, attention


class Transformer(nnx.Module):
    """L layers with parameters stacked on a leading axis, and a final norm."""

    def __init__(self, config: ModelConfig, attention_config: AttentionConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        self.attention_config = attention_config

        @nnx.split_rngs(splits=config.layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def make_layers(rngs: nnx.Rngs) -> Block:
            return Block(config, dtype, rngs)

        self.layers = make_layers(rngs)
        self.norm = RMSNorm(config.width, dtype, rngs)

    def __call__(
        self,
        x: Float[Array, "B S M"],
        *,
        positions: Int[Array, "B S"],
        segment_ids: Int[Array, "B S"],
        dropout_key: jax.Array | None = None,
        mesh: jax.sharding.Mesh | None = None,
        materialize_layer: Callable[[nnx.State], nnx.State] | None = None,
    ) -> Float[Array, "B S M"]:
        """Map token embeddings to normalized hidden states; tokens may come in any order (see `positions`).

        `materialize_layer` gathers one layer's parameters where they are sharded over a mesh; then all arrays are this
        device's shards, inside `jax.shard_map`.
        """
        config = self.config
        graph, stacked = nnx.split(self.layers)
        rotation = self.rotation(positions)

        def layer(x: jax.Array, parameters_and_key) -> tuple[jax.Array, None]:
            parameters, key = parameters_and_key
            x = checkpoint_name(x, LAYER_INPUT)
            if materialize_layer is not None:
                parameters = materialize_layer(parameters)
            block_key, attention_key = (None, None) if key is None else jax.random.split(key)

            def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
                return attention(
                    query,
                    key,
                    value,
                    config=self.attention_config,
                    mesh=mesh,
                    positions=positions,
                    segment_ids=segment_ids,
                    dropout_rate=config.attention_dropout,
                    dropout_key=attention_key,
                )

            return nnx.merge(graph, parameters)(x, positions, rotation, attend, block_key), None

        layer = rematerialize(layer, config.remat, gathers=materialize_layer is not None)
        keys = None if dropout_key is None else jax.random.split(dropout_key, config.layers)
        x, _ = jax.lax.scan(layer, x, (stacked, keys), unroll=config.layers if config.unroll_layers else 1)
        return self.norm(x)

    def rotation(self, positions: Int[Array, "B S"]) -> Rotation | None:
        """The rotary embedding of these positions; None if the model has none."""
        config = self.config
        return rope_rotation(positions, config.width // config.heads, config.rope_base) if config.rope else None
