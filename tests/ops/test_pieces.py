"""Pieces of a device's tokens: every token in one of them, and level work under zigzag."""

import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.ops.config import Kernel, Layout
from ringrl.ops.kernels import LocalOptions
from ringrl.ops.layouts import dealing_order
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
