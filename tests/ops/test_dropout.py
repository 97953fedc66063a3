"""Dropout of attention weights: one mask whatever the blocks, at the right rate, without patterns."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.ops import AttentionConfig, attention
from ringrl.ops.dropout import DropoutKeys, drop_features, dropout_multiplier, dropout_seed

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
RATE = 0.25
TOKENS, HEADS, CHAINS = 128, 4, 3


@functools.cache
def multipliers(seed=0, rate=RATE):
    positions = np.broadcast_to(np.arange(TOKENS, dtype=np.int32), (CHAINS, TOKENS))
    draw = jax.jit(functools.partial(dropout_multiplier, rate=rate))
    keys = DropoutKeys(dropout_seed(jax.random.key(seed)), np.arange(CHAINS), np.arange(HEADS))
    return np.asarray(draw(keys, query_positions=positions, key_positions=positions))


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.9])
def test_the_rate_is_right_and_the_mean_kept(rate):
    keep = multipliers(rate=rate)
    assert np.allclose(np.unique(keep), [0.0, 1.0 / (1.0 - rate)])
    deviation = np.sqrt(rate * (1 - rate) / keep.size)
    assert abs((keep == 0).mean() - rate) < 5 * deviation
    assert abs(keep.mean() - 1) < 5 * deviation / (1 - rate)


def test_rows_columns_heads_and_chains_are_independent():
    """Every row and column has the right rate, and no two slices of one kind agree more often than chance has it."""
    dropped = multipliers() == 0
    deviation = np.sqrt(RATE * (1 - RATE) / TOKENS)
    for axis in (2, 3):
        assert np.abs(dropped.mean(axis=axis) - RATE).max() < 5.5 * deviation
    agreement = RATE**2 + (1 - RATE) ** 2
    for axis in range(4):
        slices = np.moveaxis(dropped, axis, 0).reshape(dropped.shape[axis], -1)
        for one, other in itertools.combinations(slices[:8], 2):
            spread = np.sqrt(agreement * (1 - agreement) / one.size)
            assert abs((one == other).mean() - agreement) < 5.5 * spread
    transposed = dropped.swapaxes(2, 3)  # (i, j) says nothing of (j, i)
    off_diagonal = ~np.eye(TOKENS, dtype=bool)
    assert abs((dropped == transposed)[..., off_diagonal].mean() - agreement) < 0.01


def test_another_key_gives_another_mask():
    agreement = RATE**2 + (1 - RATE) ** 2
    assert abs((multipliers(0) == multipliers(1)).mean() - agreement) < 0.01
    np.testing.assert_array_equal(multipliers(0), multipliers.__wrapped__(0))


def test_dense_and_every_block_size_drop_the_same_weights():
    """Values that are unit vectors show the weights themselves."""
    tokens, heads = 12, 2
    generator = np.random.default_rng(0)
    query, key = (jnp.asarray(generator.normal(size=(2, tokens, heads, tokens)), jnp.float32) for _ in range(2))
    value = jnp.broadcast_to(jnp.eye(tokens)[None, :, None, :], query.shape)

    def weights(rate, **config):
        options = {"config": AttentionConfig(**config), "dropout_rate": rate, "dropout_key": jax.random.key(3)}
        return np.asarray(quick_jit(functools.partial(attention, **options))(query, key, value))

    dense, whole = weights(0.4, strategy="dense"), weights(0.0, strategy="dense")
    for query_block, key_block in ((3, 4), (5, 1), (64, 64)):
        found = weights(0.4, strategy="blockwise", query_block_size=query_block, key_block_size=key_block)
        np.testing.assert_allclose(found, dense, atol=1e-6)
    kept = dense > 0
    np.testing.assert_allclose(dense[kept], (whole / 0.6)[kept], rtol=1e-5)
    allowed = whole > 0
    assert 0.2 < (allowed & ~kept).sum() / allowed.sum() < 0.6


def test_no_key_or_no_rate_means_no_dropout():
    query = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, 2, 4)), jnp.float32)

    def run(**options):
        return quick_jit(functools.partial(attention, config=AttentionConfig(), **options))(query, query, query)

    plain = run()
    np.testing.assert_array_equal(run(dropout_rate=0.5), plain)
    np.testing.assert_array_equal(run(dropout_key=jax.random.key(0)), plain)
    assert np.abs(run(dropout_rate=0.5, dropout_key=jax.random.key(0)) - plain).max() > 0.1


def dropped_features(rate=RATE, seed=0, positions=None, shape=(4, 96, 64)):
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(shape[1]), shape[:2])
    drop = jax.jit(functools.partial(drop_features, rate=rate))
    return np.asarray(drop(jnp.ones(shape), key=jax.random.key(seed), positions=positions))


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.9])
def test_features_are_dropped_at_the_rate_along_every_axis(rate):
    kept = dropped_features(rate)
    assert np.allclose(np.unique(kept), [0.0, 1.0 / (1.0 - rate)])
    for axes in ((0, 1, 2), (1, 2), (0, 2), (0, 1), 1, 2):
        share = (kept == 0).mean(axis=axes)
        deviation = np.sqrt(rate * (1 - rate) / (kept.size / share.size))
        assert np.abs(share - rate).max() < 5.5 * deviation


def test_dropped_features_of_two_slices_agree_no_more_than_chance_has_it():
    dropped = dropped_features() == 0
    agreement = RATE**2 + (1 - RATE) ** 2
    for axis in range(3):
        slices = np.moveaxis(dropped, axis, 0).reshape(dropped.shape[axis], -1)
        for one, other in itertools.combinations(slices[:24], 2):
            spread = np.sqrt(agreement * (1 - agreement) / one.size)
            assert abs((one == other).mean() - agreement) < 5.5 * spread
    assert abs((dropped == (dropped_features(seed=1) == 0)).mean() - agreement) < 0.01


def test_a_dropped_feature_belongs_to_its_position_and_not_to_its_place():
    """Tokens stored in another order (as a ring's layouts do) lose the same features; the gradient is the mask."""
    order = np.random.default_rng(0).permutation(96)
    shuffled = dropped_features(positions=jnp.broadcast_to(jnp.asarray(order), (4, 96)))
    np.testing.assert_array_equal(shuffled, dropped_features()[:, order])
    positions = jnp.broadcast_to(jnp.arange(96), (4, 96))
    gradient = jax.jit(jax.grad(lambda x: drop_features(x, RATE, jax.random.key(0), positions).sum()))
    np.testing.assert_array_equal(gradient(jnp.ones((4, 96, 64))), dropped_features())


def test_no_key_or_no_rate_drops_nothing():
    x, positions = jnp.ones((1, 2, 3)), jnp.zeros((1, 2), jnp.int32)
    assert drop_features(x, 0.5, None, positions) is x
    assert drop_features(x, 0.0, jax.random.key(0), positions) is x
