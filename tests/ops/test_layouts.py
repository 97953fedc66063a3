"""Layouts: every step once, back in order again, and level work under a causal mask."""

import jax
import numpy as np
import pytest

from ringrl.ops import dealing_order, ring_size, step_order, undealing_order
from ringrl.ops.bounds import block_is_masked
from ringrl.ops.config import Layout, Strategy
from ringrl.ops.masks import Labels
from ringrl.parallel import make_mesh

LAYOUTS = list(Layout)
is_masked = jax.jit(jax.vmap(lambda q, k, s: block_is_masked(Labels(q, s), Labels(k, s), causal=True, window=None)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("steps", [64, 37, 3])
def test_every_step_is_dealt_once_and_found_again(layout: Layout, devices: int, steps: int) -> None:
    order = dealing_order(layout, steps, devices)
    assert sorted(order) == list(range(len(order)))
    assert len(order) % devices == 0
    assert len(order) - steps < 2 * devices
    np.testing.assert_array_equal(order[undealing_order(order, steps)], np.arange(steps))


def test_by_hand() -> None:
    assert dealing_order(Layout.contiguous, 5, 2).tolist() == [0, 1, 2, 3, 4, 5]
    assert dealing_order(Layout.striped, 6, 3).tolist() == [0, 3, 1, 4, 2, 5]
    assert dealing_order(Layout.zigzag, 8, 2).tolist() == [0, 1, 6, 7, 2, 3, 4, 5]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("strategy", "sizes"), [("ring", (2, 4)), ("hybrid", (2, 4)), ("ulysses", (1, 8))])
def test_a_loader_fills_up_for_all_devices(layout: Layout, strategy: str, sizes: tuple[int, int]) -> None:
    """Then attention adds no padding of its own, which would shift what each device of a ring holds."""
    mesh = make_mesh(ring=sizes[0], head=sizes[1])
    order = step_order(Strategy(strategy), layout, 18, mesh)
    assert len(order) == (32 if layout is Layout.zigzag else 24)
    np.testing.assert_array_equal(order, dealing_order(layout, len(order), ring_size(Strategy(strategy), mesh)))


def work(layout: Layout, devices: int, blocks: int, block_size: int) -> np.ndarray:
    """Pairs of blocks that each device computes in a whole trip of the ring, from the skip decisions themselves."""
    order = dealing_order(layout, devices * blocks * block_size, devices)
    positions = order.reshape(devices * blocks, 1, block_size).astype(np.int32)
    queries, keys = (index.reshape(-1) for index in np.indices((len(positions), len(positions))))
    skipped = is_masked(positions[queries], positions[keys], np.zeros((len(queries), 1, block_size), np.int32))
    return (~np.asarray(skipped)).reshape(devices, -1).sum(axis=1)


@pytest.mark.parametrize("layout", [Layout.striped, Layout.zigzag])
@pytest.mark.parametrize("devices", [2, 4, 8])
@pytest.mark.parametrize("blocks", [8, 16])
def test_balanced_layouts_are_level(layout: Layout, devices: int, blocks: int) -> None:
    per_device = work(layout, devices, blocks, 4)
    assert per_device.max() <= 1.02 * per_device.min()


def test_the_critical_path_is_half_of_the_contiguous_one() -> None:
    contiguous, zigzag = (work(layout, 8, 8, 4).max() for layout in (Layout.contiguous, Layout.zigzag))
    assert zigzag < 0.56 * contiguous
