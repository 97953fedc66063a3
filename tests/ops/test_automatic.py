"""What attention.strategy=auto becomes, and that it is said."""

import logging

import jax
import numpy as np
import pytest

from ringrl.agents.config import AgentConfig
from ringrl.config import TrainCommand
from ringrl.errors import RingRLError
from ringrl.ops import AttentionConfig, attention
from ringrl.ops.automatic import settle_by_size, settle_on_mesh
from ringrl.ops.notes import forget_notes
from ringrl.parallel import MeshConfig


def test_auto_is_the_default_and_lets_others_be() -> None:
    assert AttentionConfig().strategy == "auto"
    assert TrainCommand(agent=AgentConfig()).attention.strategy == "auto"
    dense = AttentionConfig("dense")
    assert settle_by_size(dense, 8, 4000, 4) is dense
    assert settle_on_mesh(dense, {"ring": 4}) is dense


@pytest.mark.parametrize(
    ("chains", "tokens", "heads", "kernel", "expected"),
    [
        (64, 32, 4, "auto", "dense"),
        (64, 49, 4, "auto", "blockwise"),
        (8, 500, 4, "auto", "blockwise"),
        (4096, 32, 4, "auto", "blockwise"),
        (64, 32, 4, "cudnn", "blockwise"),
    ],
)
def test_dense_is_for_the_small(chains: int, tokens: int, heads: int, kernel: str, expected: str) -> None:
    assert settle_by_size(AttentionConfig(kernel=kernel), chains, tokens, heads).strategy == expected


def test_a_long_chain_has_no_square_of_scores() -> None:
    """By default: 8 chains of 4,096 tokens, forward and backward, in less than one array of their scores."""
    array = jax.ShapeDtypeStruct((8, 4096, 4, 16), np.float32)
    gradient = jax.grad(lambda *arrays: attention(*arrays, config=AttentionConfig()).sum(), argnums=(0, 1, 2))
    compiled = jax.jit(gradient, compiler_options={"xla_backend_optimization_level": 0}).lower(*(array,) * 3).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * 4 * 4096**2 * 4 / 4


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, "auto"),
        ({"fsdp": 4}, "auto"),
        ({"ring": -1}, "ring"),
        ({"head": 2}, "ulysses"),
        ({"ring": 2, "head": 2}, "hybrid"),
    ],
)
def test_a_mesh_decides(sizes: dict, expected: str) -> None:
    """A run's mesh is recorded with the strategy that it makes."""
    command = TrainCommand(mesh=MeshConfig(**sizes), training=TrainCommand().training)
    assert command.attention.strategy == expected


def test_dense_on_a_ring_is_still_refused() -> None:
    with pytest.raises(RingRLError, match=r"^mesh\.ring=2 with attention\.strategy=dense"):
        TrainCommand(attention=AttentionConfig("dense"), mesh=MeshConfig(ring=2))


def test_the_log_says_which_and_why(caplog: pytest.LogCaptureFixture) -> None:
    forget_notes()
    with caplog.at_level(logging.INFO, "ringrl"):
        for tokens in (32, 32, 512):
            settle_by_size(AttentionConfig(), 8, tokens, 4)
        settle_on_mesh(AttentionConfig(), {"data": 2, "ring": 4, "head": 1})
        settle_on_mesh(AttentionConfig(), {"data": 2})
    assert caplog.messages == [
        "attention.strategy=auto: dense, because chains of 32 tokens have scores of 0.1 MiB a layer.",
        "attention.strategy=auto: blockwise, because dense is for at most 48 tokens and 16 MiB of scores a layer, "
        "and 8 chains of 512 tokens have 32.0 MiB.",
        "attention.strategy=auto: ring, because of mesh.ring=4.",
    ]


def test_a_job_after_another_in_one_process_hears_of_it_too(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ringrl"):
        for _ in range(2):
            forget_notes()
            settle_by_size(AttentionConfig(), 8, 32, 4)
    assert len(caplog.messages) == 2
