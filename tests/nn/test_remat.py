"""Rematerialization: the same gradients, with less memory for more work."""

import functools

import jax
import numpy as np
import pytest

from ringrl.nn import Remat
from ringrl.ops import AttentionConfig

POLICIES = tuple(Remat)
QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time
BLOCKWISE = AttentionConfig("blockwise", query_block_size=64, key_block_size=64)


@functools.cache
def gradient(network, remat: Remat, length: int):
    """A compiled gradient, and its result; `length` tokens."""
    made = network(BLOCKWISE, remat=remat)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(1, length, 16)).astype(np.float32)
    positions = np.arange(length, dtype=np.int32)[None]

    def loss(state, x):
        return (made(state, x, positions, np.zeros_like(positions)) ** 2).sum()

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(made.state, x).compile(QUICK)
    return compiled, compiled(made.state, x)


@pytest.mark.parametrize(
    "remat",
    [Remat.layer, *(pytest.param(remat, marks=pytest.mark.scale) for remat in POLICIES[1:] if remat != "layer")],
)
def test_gradients_are_the_same(network, remat: Remat) -> None:
    expected, found = (gradient(network, which, 64)[1] for which in (Remat.none, remat))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.scale
def test_each_spares_memory_for_work(network) -> None:
    programs = {remat: gradient(network, remat, 64)[0] for remat in POLICIES}
    flops = {remat: program.cost_analysis()["flops"] for remat, program in programs.items()}
    memory = {remat: program.memory_analysis().temp_size_in_bytes for remat, program in programs.items()}
    assert memory[Remat.none] > memory[Remat.dots] > memory[Remat.layer]
    assert memory[Remat.none] > memory[Remat.attention] > memory[Remat.layer]
    assert flops[Remat.none] < flops[Remat.dots] < flops[Remat.layer]
    assert flops[Remat.none] < flops[Remat.attention] < flops[Remat.layer]
    # Scores and mixed values, forward: 2 products x 2 x S^2 x M, of the scan's body, which counts once.
    assert flops[Remat.layer] - flops[Remat.attention] >= 4 * 64**2 * 16
