"""Pieces of a device's tokens: every token in one of them, and level work under zigzag."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.ops.config import Kernel, Layout
from ringrl.ops.layouts import dealing_order
from ringrl.ops.operands import LocalOptions
from ringrl.ops.pieces import piece_count, put_piece, take_piece

OPTIONS = LocalOptions(True, None, 0.0, 4, 4)


@pytest.mark.parametrize(
    ("length", "pieces"),
    [(64, 4), (16, 2), (8, 1), (12, 1), (32, 4), (48, 2), (264, 4), (260, 2), (7, 1), (263, 1)],
)
def test_halves_are_whole_blocks_or_many(length: int, pieces: int) -> None:
    assert piece_count(length, OPTIONS) == pieces
    assert piece_count(length, OPTIONS._replace(kernel=Kernel.cudnn)) == 1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
@pytest.mark.parametrize("pieces", [1, 2, 4])
def test_what_is_taken_can_be_put_back(pieces: int, dtype) -> None:
    whole = jnp.arange(3 * 16 * 2).reshape(3, 16, 2).astype(dtype)
    again = jnp.zeros_like(whole)
    for index in range(pieces):
        piece = take_piece(whole, pieces, jnp.asarray(index))
        assert piece.shape == (3, 16 // pieces, 2)
        again = put_piece(again, piece, pieces, jnp.asarray(index))
    np.testing.assert_array_equal(again, whole)


def test_tangents_of_bfloat16_move_as_values_do() -> None:
    """They were lost on the way: values move as integers, which have no tangents."""
    whole, tangent = (jnp.arange(first, first + 32.0).reshape(1, 16, 2).astype(jnp.bfloat16) for first in (0, 100))
    index = jnp.asarray(1)

    def take_and_put(whole: jax.Array) -> jax.Array:
        piece = take_piece(whole, 4, index)
        return put_piece(whole, 2 * piece, 4, jnp.asarray(0))

    _, found = jax.jvp(take_and_put, (whole,), (tangent,))
    np.testing.assert_array_equal(np.float32(found), np.float32(take_and_put(tangent)))
    (gradient,) = jax.vjp(take_and_put, whole)[1](jnp.ones_like(whole))
    expected = np.ones((1, 2, 4, 2, 2), np.float32)  # chains, halves, pieces, tokens, features
    expected[:, :, 0], expected[:, :, 1] = 0, 3
    np.testing.assert_array_equal(np.float32(gradient).reshape(expected.shape), expected)


@pytest.mark.parametrize("layout", [Layout.zigzag, Layout.striped])
def test_devices_work_alike_on_each_piece(layout: Layout) -> None:
    """The allowed pairs of one piece of any device's keys with the queries of each device."""
    devices, tokens = 4, 32
    positions = jnp.asarray(dealing_order(layout, devices * tokens, devices).reshape(devices, tokens))
    for index in range(4):
        keys = take_piece(positions, 4, jnp.asarray(index))
        pairs = np.asarray((positions[:, None, :, None] >= keys[None, :, None, :]).sum(axis=(2, 3)))
        assert pairs.sum(axis=1).max() <= 1.1 * pairs.sum(axis=1).min()
        by_hop = np.stack([[pairs[i, (i - hop) % devices] for i in range(devices)] for hop in range(1, devices)])
        assert (by_hop.max(axis=1) <= 1.25 * by_hop.min(axis=1)).all()
