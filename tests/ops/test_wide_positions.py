"""Positions are any int32: nothing that is said of two of them may overflow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.ops import AttentionConfig, attention, decode_attention
from ringrl.ops.bounds import block_is_masked
from ringrl.ops.kernels.kinds import kinds_that_hold
from ringrl.ops.masks import Labels, attention_mask, moved_back, moved_on
from ringrl.ops.operands import LocalOptions
from ringrl.parallel import make_mesh

QUICK = {"xla_backend_optimization_level": 0}
LOWEST, HIGHEST = -(2**31), 2**31 - 1
EXTREMES = np.array([LOWEST, LOWEST + 1, LOWEST + 5, -7, -1, 0, 1, 6, HIGHEST - 5, HIGHEST - 1, HIGHEST], np.int32)
WINDOWS = (None, 1, 6, 2**31 - 8, 2**31 - 1, 2**31, 2**31 + 6, 2**32 - 1, 2**32, 2**40)


@pytest.mark.parametrize("distance", [0, 1, 5, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40])
def test_positions_move_and_stop_at_the_ends(distance: int) -> None:
    wide = EXTREMES.astype(object)
    assert moved_back(jnp.asarray(EXTREMES), distance).tolist() == np.maximum(wide - distance, LOWEST).tolist()
    assert moved_on(jnp.asarray(EXTREMES), distance).tolist() == np.minimum(wide + distance, HIGHEST).tolist()


def rule(queries: np.ndarray, keys: np.ndarray, causal: bool, window: int | None) -> np.ndarray:
    """In Python's own integers."""
    distance = queries.astype(object)[..., :, None] - keys.astype(object)[..., None, :]
    allowed = distance >= 0 if causal else distance == distance
    return (allowed if window is None else allowed & (abs(distance) < window)).astype(bool)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", WINDOWS)
def test_masks_and_what_bounds_prove(causal: bool, window: int | None) -> None:
    """Each pair of positions, then blocks of three: none that is skipped, or said to be of a kind, is otherwise."""
    options = {"causal": causal, "window": window}
    labels = Labels(jnp.asarray(EXTREMES[None]), np.zeros((1, len(EXTREMES)), np.int32))
    mask = attention_mask(labels, labels, **options)
    np.testing.assert_array_equal(mask[0], rule(EXTREMES, EXTREMES, **options))

    generator = np.random.default_rng(0)
    blocks = np.sort(generator.choice(EXTREMES, (2, 500, 1, 4)), axis=-1)
    blocks[1, :100] = blocks[0, :100]
    expected = rule(blocks[0, :, 0], blocks[1, :, 0], **options)
    skipped = block_is_masked(*(Labels(block, np.zeros_like(block)) for block in blocks), **options)
    assert not expected[np.asarray(skipped)].any()

    @jax.vmap
    def held(queries, keys):
        local = LocalOptions(causal, window, 0.0, 4, 4)
        zeros = jnp.zeros_like(queries)
        holds = kinds_that_hold(local, Labels(queries, zeros), Labels(keys, zeros))
        return {kind.name: value for kind, value in holds.items()}

    holds, (row, column) = held(*blocks), np.indices((4, 4))
    claims = {"full": column >= 0, "causal": column <= row, "strict": column < row, "masked": column < 0}
    claims |= {"early_keys": column < 2, "late_queries": row >= 2}
    for name, claim in claims.items():
        if name in holds:
            assert (expected[np.asarray(holds[name])] == claim).all(), name


@pytest.mark.parametrize("strategy", ["dense", "blockwise", "ring"])
@pytest.mark.parametrize("window", [None, 5])
def test_no_strategy_attends_to_the_future(strategy: str, window: int | None) -> None:
    """Positions more than 2**31 apart: each token attends to those that are not later, and within the window."""
    positions = np.array([[HIGHEST, 0, LOWEST, HIGHEST - 3, LOWEST + 2, -1, 3, HIGHEST - 9]], np.int32)
    value = jnp.asarray(np.eye(8)[None, :, None], jnp.float32)  # the output is the weights
    query = jnp.zeros((1, 8, 1, 8), jnp.float32)
    config = AttentionConfig(strategy, query_block_size=2, key_block_size=2)
    attend = functools.partial(attention, config=config, mesh=make_mesh(ring=2) if strategy == "ring" else None)
    found = jax.jit(functools.partial(attend, window=window), compiler_options=QUICK)(
        query, query, value, positions=positions
    )
    allowed = rule(positions[0], positions[0], True, window)
    np.testing.assert_allclose(found[0, :, 0], allowed / allowed.sum(axis=1, keepdims=True), atol=1e-6)


def test_decoding_does_not_attend_to_the_future() -> None:
    positions = np.array([[HIGHEST, 0, LOWEST, HIGHEST - 3]], np.int32)
    value = jnp.asarray(np.eye(4)[None, None], jnp.float32)
    found = jax.jit(decode_attention)(
        jnp.zeros((1, 4, 1, 4), jnp.float32),
        value,
        value,
        query_positions=positions,
        key_positions=positions,
        query_segments=np.zeros((1, 4), np.int32),
        key_segments=np.zeros((1, 4), np.int32),
    )
    allowed = rule(positions[0], positions[0], True, None)
    np.testing.assert_allclose(found[0, :, 0], allowed / allowed.sum(axis=1, keepdims=True), atol=1e-6)
