"""Global batches from the parts of each device, against whole batches that were dealt."""

import dataclasses

import jax
import numpy as np
import pytest

from ringrl.data import ChainSampler, EpisodeStoreWriter, fit_normalization
from ringrl.data.config import ChainConfig
from ringrl.data.reorder import reorder_chain
from ringrl.errors import RingRLError
from ringrl.ops import Layout, dealing_order
from ringrl.parallel import make_mesh
from ringrl.parallel.batches import BatchParts
from ringrl.parallel.mesh import AXES
from ringrl.types import ActionKind, ActionSpec, Chain

CHAINS = 8
MESHES = (
    {"ring": 8},
    {"head": 8},
    {"data": 8},
    {"data": 2, "ring": 2, "head": 2},
    {"fsdp": 2, "ring": 4},
    {"data": 2, "fsdp": 2, "head": 2},
    {"ring": 3},  # fewer than there are
)


@pytest.fixture(scope="module")
def sampler(tmp_path_factory) -> ChainSampler:
    """Chains of three of 12 episodes of 1 to 9 steps."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("batches") / "store"
    with EpisodeStoreWriter(path, 3, ActionSpec(ActionKind.continuous, 2, (-1.0,) * 2, (1.0,) * 2)) as writer:
        for _ in range(12):
            steps = int(random.integers(1, 10))
            writer.append(random.normal(size=(steps, 3)), random.uniform(-1, 1, (steps, 2)), random.random(steps))
        store = writer.finish()
    return ChainSampler(store, ChainConfig(trajectories=3), fit_normalization(store))


def assert_equal(batch: Chain, expected: Chain) -> None:
    for field in dataclasses.fields(Chain):
        got, wanted = getattr(batch, field.name), getattr(expected, field.name)
        assert got.shape == wanted.shape, field.name
        np.testing.assert_array_equal(np.asarray(got), wanted, err_msg=field.name)
        for shard in got.addressable_shards:
            np.testing.assert_array_equal(np.asarray(shard.data), wanted[shard.index], err_msg=field.name)


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("axes", MESHES, ids=str)
def test_joined_parts_are_the_batch_dealt(sampler, axes, layout):
    mesh = make_mesh(**axes)
    order = dealing_order(layout, sampler.steps, mesh.shape["ring"] * mesh.shape["head"])
    batches = BatchParts(mesh, CHAINS, order)
    assert len(batches.parts) == mesh.size
    joined = batches.join([sampler.batch(5, 2, CHAINS, *part) for part in batches.parts])
    assert_equal(joined, reorder_chain(sampler.batch(5, 2, CHAINS), order))
    assert joined.observations.sharding.is_equivalent_to(batches.sharding, 3)
    assert joined.loss_mask.sharding.is_equivalent_to(batches.sharding, 2)


def test_any_order_of_devices(sampler):
    devices = np.random.default_rng(0).permutation(np.array(jax.devices())).reshape(1, 2, 2, 2)
    order = dealing_order(Layout.zigzag, sampler.steps, 4)
    batches = BatchParts(jax.sharding.Mesh(devices, AXES), CHAINS, order)
    parts = [sampler.batch(0, 0, CHAINS, *part) for part in batches.parts]
    assert_equal(batches.join(parts), reorder_chain(sampler.batch(0, 0, CHAINS), order))


def test_every_device_has_no_more_than_its_own(sampler):
    order = dealing_order(Layout.striped, sampler.steps, 4)
    batches = BatchParts(make_mesh(data=2, ring=2, head=2), CHAINS, order)
    held = np.zeros((CHAINS, len(order)), int)
    for rows, places in batches.parts:
        assert len(places) == len(order) // 4
        held[np.ix_(range(CHAINS)[rows], places)] += 1
    assert (held == 1).all()


def test_chains_that_do_not_divide_name_the_remedy(sampler):
    with pytest.raises(RingRLError) as caught:
        BatchParts(make_mesh(data=2, fsdp=2, ring=2), 6, np.arange(8))
    message = "training.batch_size=6 does not divide among mesh.data x mesh.fsdp = 4 devices"
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="7 places do not divide among 2 devices"):
        BatchParts(make_mesh(data=2, fsdp=2, ring=2), 4, np.arange(7))
