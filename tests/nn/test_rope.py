"""Rotary positions: scores depend on the distance alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.nn.rope import apply_rope, rope_rotation


@functools.partial(jax.jit, static_argnames="base")
def rope(x, positions, base):
    return apply_rope(x, rope_rotation(positions, x.shape[-1], base))


def vectors(tokens=6, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(1, tokens, 2, 8)), jnp.float32)


def at(*positions):
    return jnp.asarray([positions], jnp.int32)


def scores(query_positions, key_positions):
    query, key = vectors(6, 0), vectors(6, 1)
    rotated = rope(query, query_positions, base=100.0), rope(key, key_positions, base=100.0)
    return np.einsum("bqhd,bkhd->bhqk", *rotated)


def test_scores_depend_on_distance_alone():
    positions = at(0, 5, 3, 2, 9, 1)
    reference = scores(positions, positions)
    for shift in (7, 1000, 512 * 1024, 16 * 1024**2, 10**9):
        np.testing.assert_allclose(scores(positions + shift, positions + shift), reference, atol=5e-6)
    assert np.abs(scores(positions + 7, positions) - reference).max() > 0.5


@pytest.mark.parametrize("base", [100.0, 1e4, 5e5])
@pytest.mark.parametrize("start", [-7, 0, 2**24 - 3, 2**31 - 6])
def test_angles_are_those_of_float64(start, base):
    positions = at(*range(start, start + 6))
    cosines, sines = rope_rotation(positions, 8, base)
    angles = np.arange(start, start + 6, dtype=np.float64)[:, None] * base ** (-np.arange(4) / 4)
    np.testing.assert_allclose(cosines[0, :, 0, :4], np.cos(angles), atol=1e-6)
    np.testing.assert_allclose(sines[0, :, 0, 4:], np.sin(angles), atol=1e-6)


def test_position_0_turns_nothing_and_lengths_are_kept():
    x = vectors()
    np.testing.assert_allclose(rope(x, at(*[0] * 6), base=1e4), x, atol=1e-6)
    turned = rope(x, at(3, 1, 4, 1, 5, 9), base=1e4)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)
    assert np.abs(turned - x).max() > 0.5


def test_by_hand():
    """D = 4, base 16: pair (0, 2) turns by the position, pair (1, 3) by a quarter of it."""
    x = jnp.asarray([1.0, 0.0, 0.0, 2.0])[None, None, None]
    expected = [np.cos(2), -2 * np.sin(0.5), np.sin(2), 2 * np.cos(0.5)]
    np.testing.assert_allclose(rope(x, at(2), base=16.0)[0, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_angles_stay_exact_in_low_precision(dtype):
    """A position of a million is a whole number of float32, not of bfloat16."""
    x = vectors().astype(dtype)
    far, farther = (rope(x, at(*[position] * 6), base=1e4) for position in (1_000_000, 1_000_001))
    assert far.dtype == dtype
    assert np.abs(np.float32(far) - np.float32(farther)).max() > 0.5
