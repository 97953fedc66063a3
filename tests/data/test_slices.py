"""Shards of batches compared with reordered whole batches: bit-identical, and at a cost proportional to the shard."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
from covering import covering_set

from ringrl.data import ChainSampler, EpisodeStore, EpisodeStoreWriter, fill, fit_normalization, pages, runs
from ringrl.data.config import ChainConfig, Context, Order, Supervise
from ringrl.data.reorder import reorder_chain
from ringrl.ops import Layout, dealing_order
from ringrl.types import ActionKind, ActionSpec, Chain

CHAINS = 5
CASES = {
    "discrete": (False, True),
    "trajectories": (4, 1, "window of 5"),
    "order": tuple(Order),
    "relabel": (True, False),
    "supervise": tuple(Supervise),
    "context": tuple(Context),
    "layout": (*Layout, "permuted"),
    "devices": (1, 3, 8),
    "rows": (slice(None), slice(1, 4), slice(4, 5)),
    "block_steps": (fill.BLOCK_STEPS, 3, 30, "runs"),  # within a chain, several chains to a block, and run by run
    "resident_bytes": (pages.RESIDENT_BYTES, 1),  # pages go back after every block
}


def dealt_order(layout: str, steps: int, devices: int) -> np.ndarray:
    """The layout's, or any order with padding anywhere."""
    if layout != "permuted":
        return dealing_order(Layout(layout), steps, devices)
    return np.random.default_rng(0).permutation((steps // devices + 2) * devices)


def assert_equal_bits(got: Chain, expected: Chain) -> None:
    for field in dataclasses.fields(Chain):
        one, other = getattr(got, field.name), getattr(expected, field.name)
        assert (one.dtype, one.shape) == (other.dtype, other.shape), field.name
        assert one.tobytes() == np.ascontiguousarray(other).tobytes(), field.name


def sliced(chain: Chain, rows: slice, columns: slice) -> Chain:
    return Chain(**{field.name: getattr(chain, field.name)[rows, columns] for field in dataclasses.fields(Chain)})


def test_a_slice_is_that_of_the_whole_batch_dealt(make_store, monkeypatch):
    stores = {discrete: make_store(tasks=2, discrete=discrete) for discrete in (False, True)}
    padded = 0
    for discrete, size, order, relabel, supervise, context, layout, devices, rows, block, resident in covering_set(
        CASES, sample=60
    ):
        store = stores[discrete]
        many = {"trajectories": 1, "window_steps": 5} if isinstance(size, str) else {"trajectories": size}
        config = ChainConfig(order=order, relabel=relabel, supervise=supervise, context=context, **many)
        sampler = ChainSampler(store, config, fit_normalization(store))
        places = dealt_order(layout, sampler.steps, devices)
        whole = reorder_chain(sampler.batch(3, 1, CHAINS), places)
        with monkeypatch.context() as patch:
            if block == "runs":
                patch.setattr(runs, "WORTHWHILE_STEPS", 1e-9)
            else:
                patch.setattr(fill, "BLOCK_STEPS", block)
            patch.setattr(pages, "RESIDENT_BYTES", resident)
            for columns in np.split(np.arange(len(places)), devices):
                part = sampler.batch(3, 1, CHAINS, rows, places[columns])
                assert_equal_bits(part, sliced(whole, rows, slice(columns[0], columns[-1] + 1)))
        padded += (places >= sampler.steps).any()
    assert padded > 5


def test_a_slice_of_padding_alone(make_store):
    store = make_store(tasks=1)
    sampler = ChainSampler(store, ChainConfig(trajectories=2), fit_normalization(store))
    part = sampler.batch(0, 0, 3, places=sampler.steps + np.arange(4))
    assert (part.segment_ids == -1).all()
    for field in dataclasses.fields(Chain):
        assert field.name == "segment_ids" or not getattr(part, field.name).any(), field.name


@pytest.fixture(scope="module")
def long_store(tmp_path_factory) -> EpisodeStore:
    """40 episodes of 1,000 steps."""
    observations = np.random.default_rng(0).normal(size=(1000, 24)).astype(np.float32)
    path = tmp_path_factory.mktemp("long") / "store"
    with EpisodeStoreWriter(path, 24, ActionSpec(ActionKind.continuous, 6, (-1.0,) * 6, (1.0,) * 6)) as writer:
        for _ in range(40):
            writer.append(observations, observations[:, :6] / 10, np.ones(1000))
        return writer.finish()


@pytest.mark.parametrize("layout", Layout)
def test_an_eighth_allocates_an_eighth(long_store, monkeypatch, layout):
    monkeypatch.setattr(fill, "BLOCK_STEPS", 256)
    sampler = ChainSampler(long_store, ChainConfig(trajectories=40), fit_normalization(long_store))
    places = np.split(dealing_order(layout, sampler.steps, 8), 8)[3].copy()

    def peak(places: np.ndarray | None) -> int:
        tracemalloc.start()
        try:
            sampler.batch(0, 0, 1, places=places)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(places)  # what Python keeps from the first call
    whole, part = peak(None), peak(places)
    assert whole > sampler.steps * 4 * (24 + 2 * 6)  # buffers of numpy are counted
    assert part < whole / 8 + 200_000


def test_pages_go_back_within_a_chain(long_store, monkeypatch):
    released = []
    monkeypatch.setattr(pages, "RESIDENT_BYTES", long_store.step_bytes // 8)
    monkeypatch.setattr(EpisodeStore, "release", lambda store: released.append(store))
    sampler = ChainSampler(long_store, ChainConfig(trajectories=40), fit_normalization(long_store))
    monkeypatch.setattr(fill, "BLOCK_STEPS", 100)
    for places in (np.arange(sampler.steps), np.arange(0, sampler.steps, 8)):  # both touch every page
        released.clear()
        sampler.batch(0, 0, 1, places=places)
        assert len(released) >= 7
