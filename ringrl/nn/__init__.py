"""Flax nnx modules: the transformer, its key-value cache, and the embedding of steps."""

from typing import TYPE_CHECKING

from ringrl.lazy import on_demand

if TYPE_CHECKING:
    from ringrl.nn.cache import KeyValueCache as KeyValueCache
    from ringrl.nn.cache import empty_cache as empty_cache
    from ringrl.nn.cache import forget_contexts as forget_contexts
    from ringrl.nn.cache import grow_cache as grow_cache
    from ringrl.nn.config import Feedforward as Feedforward
    from ringrl.nn.config import ModelConfig as ModelConfig
    from ringrl.nn.config import Remat as Remat
    from ringrl.nn.decoding import decode_tokens as decode_tokens
    from ringrl.nn.transformer import Transformer as Transformer

__getattr__ = on_demand(
    globals(),
    {
        "cache": "KeyValueCache empty_cache forget_contexts grow_cache",
        "config": "Feedforward ModelConfig Remat",
        "decoding": "decode_tokens",
        "transformer": "Transformer",
    },
)
