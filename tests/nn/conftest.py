"""A transformer as a pure function, small enough to differentiate everywhere."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ringrl.nn import ModelConfig, Transformer
from ringrl.ops import AttentionConfig

CHAINS, TOKENS, WIDTH = 2, 10, 16
QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time


@dataclasses.dataclass(frozen=True)
class Network:
    """A transformer taken apart: `graph` and `state`; parameters depend on sizes alone."""

    model: ModelConfig
    attention: AttentionConfig
    dtype: object

    @functools.cached_property
    def graph(self):
        return self._parts[0]

    @functools.cached_property
    def state(self):
        """Drawn by numpy, to compile nothing; matrices keep the scale of what they read, norms are near 1."""
        generator = np.random.default_rng(0)

        def draw(leaf):
            noise = generator.normal(size=leaf.shape).astype(leaf.dtype)
            return jnp.asarray(noise * leaf.shape[-2] ** -0.5 if leaf.ndim == 3 else 1 + 0.3 * noise)

        return jax.tree.map(draw, self._parts[1])

    @functools.cached_property
    def _parts(self):
        return nnx.split(
            nnx.eval_shape(lambda: Transformer(self.model, self.attention, self.dtype, nnx.Rngs(0))), nnx.Param, ...
        )[:2]

    @functools.cached_property
    def jitted(self):
        """`__call__`, compiled once for all tests."""
        return jax.jit(self.__call__, compiler_options=QUICK)

    def __call__(self, state, x, positions, segment_ids, key=None):
        """Hidden states (B, S, M)."""
        transformer = nnx.merge(self.graph, state)
        return transformer(x, positions=positions, segment_ids=segment_ids, dropout_key=key)


@functools.cache
def make_network(attention: AttentionConfig | None = None, dtype=jnp.float32, **options) -> Network:
    usual = {"layers": 2, "width": WIDTH, "heads": 4, "key_value_heads": 2, "unroll_layers": False}
    return Network(ModelConfig(**{**usual, **options}), attention or AttentionConfig(), dtype)


@pytest.fixture(scope="session")
def network():
    """`network(**options)`."""
    return make_network


@pytest.fixture(scope="session")
def inputs() -> tuple[jax.Array, jax.Array, jax.Array]:
    """x (B, S, M), positions in no order, and segment ids: two segments and padding."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(CHAINS, TOKENS, WIDTH)).astype(np.float32)
    positions = np.stack([generator.permutation(TOKENS) for _ in range(CHAINS)]).astype(np.int32)
    by_position = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 1, -1], [2] * 10], np.int32)
    return jnp.asarray(x), jnp.asarray(positions), jnp.asarray(np.take_along_axis(by_position, positions, axis=1))
