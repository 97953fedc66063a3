"""A training step compiled from shapes alone, and what its memory grows with: read from the program, so exact."""

import functools

import jax
import jax.numpy as jnp
import pytest

from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.parallel import make_mesh
from ringrl.planning.compile.step import abstract_batch, abstract_state, compile_step, synthetic_agent
from ringrl.training.config import TrainingConfig
from ringrl.training.state import create_state
from ringrl.types import ActionKind, ActionSpec, DataSpec

QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time
BLOCK = 64


def agent_of(devices: int, dtype=jnp.float32, **model):
    """Of a width at which what a layer keeps of its tokens outweighs a pair of blocks' scores."""
    sizes = {"layers": 3, "width": 64, "heads": 4, "feedforward_block_size": BLOCK, "unroll_layers": False, **model}
    attention = AttentionConfig("ring", query_block_size=BLOCK, key_block_size=BLOCK)
    mesh = make_mesh(ring=devices)
    return synthetic_agent(ModelConfig(**sizes), attention, mesh, compute_dtype=dtype, loss_block_size=BLOCK)


def test_the_abstract_state_is_a_state() -> None:
    agent, training = agent_of(devices=4), TrainingConfig()
    state, abstract = create_state(agent, training, seed=0), abstract_state(agent, training)
    assert jax.tree.structure(state) == jax.tree.structure(abstract)
    for leaf, like in zip(jax.tree.leaves(state), jax.tree.leaves(abstract), strict=True):
        assert (leaf.shape, leaf.dtype) == (like.shape, like.dtype)
        assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)


@pytest.mark.parametrize("kind", ActionKind)
def test_the_abstract_batch_is_what_the_loss_takes(kind: ActionKind) -> None:
    spec = DataSpec(3, ActionSpec(kind, 2, (-1.0,) * 2, (1.0,) * 2), 10)
    agent = synthetic_agent(ModelConfig(), AttentionConfig(), None, spec=spec)
    params, batch = abstract_state(agent, TrainingConfig()).params, abstract_batch(agent, 2, 12)
    loss, metrics = jax.eval_shape(agent.loss, params, batch, jax.random.key(0))
    assert loss.shape == metrics["supervised_steps"].shape == ()


@functools.cache
def temporary_bytes(devices: int, tokens: int, dtype: str = "float32", remat: str = "layer") -> int:
    """Of a device."""
    agent = agent_of(devices, jnp.dtype(dtype), remat=remat)
    return compile_step(agent, TrainingConfig(), 1, tokens, QUICK).memory_analysis().temp_size_in_bytes


@pytest.mark.scale
@pytest.mark.parametrize(("dtype", "remat"), [("float32", "layer"), ("bfloat16", "layer"), ("float32", "attention")])
def test_memory_is_flat_at_as_many_tokens_a_device(dtype: str, remat: str) -> None:
    """Within 5 % from 2 to 8 devices."""
    found = [temporary_bytes(devices, 8192 * devices, dtype, remat) for devices in (2, 4, 8)]
    assert max(found) <= 1.05 * min(found)


@pytest.mark.scale
@pytest.mark.parametrize("devices", [1, 8])
def test_memory_is_linear_in_the_chain(devices: int) -> None:
    """And a token of a device takes a few arrays of its features, not a share of all other tokens."""
    short, long, longer = (temporary_bytes(devices, tokens * devices) for tokens in (8192, 16384, 32768))
    assert longer - long == pytest.approx(2 * (long - short), rel=0.03)
    assert longer - long < 16384 * 40 * 64 * 4
