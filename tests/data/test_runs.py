"""Chains filled in by run against chains filled in by step: the same bits; and which of the two is taken when."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringrl.data import ChainSampler, EpisodeStore, EpisodeStoreWriter, fit_normalization, runs
from ringrl.data.config import ChainConfig, Context, Order, Supervise
from ringrl.data.joined import join_stores
from ringrl.data.runs import find_spans
from ringrl.ops import Layout, dealing_order
from ringrl.types import ActionKind, ActionSpec, Chain

CASES = {
    "discrete": (False, True),
    "order": tuple(Order),
    "relabel": (True, False),
    "supervise": tuple(Supervise),
    "context": tuple(Context),
    "size": ((1, 0), (4, 0), (6, 0), (1, 1), (1, 5), (1, 50)),  # trajectories, and steps of a window
    "view": ("all", "some", "best"),
    "tile": (runs.TILE_NUMBERS, 2, 9),  # all of an episode at a time, a step, and three
    "places": ("whole", "end", "stretches", "any"),
}
VIEWS = {
    "all": lambda store: store,
    "some": lambda store: store.select(np.r_[1:22, 23:24][::-1]),
    "best": lambda store: store.keep_top(0.8),
}


def places_of(kind: str, steps: int) -> np.ndarray | None:
    """All steps, or the last ones and what is past them, or stretches out of order, or any order with padding."""
    order = np.arange(steps + 4)
    if kind == "end":
        return order[steps // 2 :]
    if kind == "stretches":
        return np.concatenate(np.array_split(order, 4)[::-1])
    return np.random.default_rng(1).permutation(order) if kind == "any" else None


def assert_equal_bits(got: Chain, expected: Chain) -> None:
    for field in dataclasses.fields(Chain):
        one, other = getattr(got, field.name), getattr(expected, field.name)
        assert (one.dtype, one.shape) == (other.dtype, other.shape), field.name
        assert one.tobytes() == other.tobytes(), field.name


def test_by_run_equals_by_step(make_store, monkeypatch):
    stores = {discrete: make_store(tasks=3, episodes=8, discrete=discrete) for discrete in (False, True)}
    generator, ties, padded = np.random.default_rng(0), 0, 0
    for _ in range(60):
        case = [choices[generator.integers(len(choices))] for choices in CASES.values()]
        discrete, order, relabel, supervise, context, (size, window), view, tile, places = case
        store = VIEWS[view](stores[discrete])
        config = ChainConfig(size, order, relabel, supervise, context, window)
        with monkeypatch.context() as patch:
            patch.setattr(runs, "TILE_NUMBERS", tile)
            patch.setattr(runs, "WORTHWHILE_STEPS", 1e-9)
            sampler = ChainSampler(store, config, fit_normalization(store))
            for index in range(2):
                episodes, first_steps = sampler.draw(0, index, 6)
                trajectories = sampler._trajectories(episodes, first_steps)
                chosen = places_of(places, sampler.steps)
                chosen = np.arange(sampler.steps) if chosen is None else chosen
                by_run = sampler._by_run.chains(trajectories, chosen)
                by_step = sampler._by_step.chains(trajectories, chosen)
                assert_equal_bits(by_run, by_step)
                assert_equal_bits(sampler.batch(0, index, 6, places=chosen), by_step)
                padded += (by_step.segment_ids[:, : sampler.steps] < 0).any()
                ties += any(len(set(row)) < len(row) for row in store.returns[episodes].tolist())
    assert ties > 20
    assert padded > 20


@pytest.fixture(scope="module")
def long_store(tmp_path_factory) -> EpisodeStore:
    """10 episodes of 990 to 1,000 steps."""
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("runs") / "store"
    with EpisodeStoreWriter(path, 24, ActionSpec(ActionKind.continuous, 6, (-1.0,) * 6, (1.0,) * 6)) as writer:
        for steps in generator.integers(990, 1001, 10):
            actions = generator.uniform(-1, 1, (steps, 6))
            writer.append(generator.normal(size=(steps, 24)), actions, generator.normal(size=steps))
        return writer.finish()


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("context", Context)
def test_long_trajectories_by_run_equal_those_by_step(long_store, context, joined):
    store = (
        join_stores([long_store.select(np.arange(4)), long_store.select(np.arange(4, 10))]) if joined else long_store
    )
    sampler = ChainSampler(store, ChainConfig(3, context=context), fit_normalization(store))
    trajectories = sampler._trajectories(*sampler.draw(0, 0, 2))
    for places in (np.arange(sampler.steps), *np.split(dealing_order(Layout.zigzag, sampler.steps, 2), 2)):
        by_run = sampler._by_run.chains(trajectories, places)
        assert by_run is not None
        assert_equal_bits(by_run, sampler._by_step.chains(trajectories, places))


def test_runs_are_taken_where_they_are_long(long_store, make_store):
    def by_run(store: EpisodeStore, config: ChainConfig, places: np.ndarray | None = None) -> bool:
        sampler = ChainSampler(store, config, fit_normalization(store))
        trajectories = sampler._trajectories(*sampler.draw(0, 0, 2))
        return sampler._by_run.chains(trajectories, np.arange(sampler.steps) if places is None else places) is not None

    assert by_run(long_store, ChainConfig(8))
    assert by_run(long_store, ChainConfig(1, window_steps=500))
    assert by_run(long_store, ChainConfig(8), np.arange(2000, 4000))
    assert not by_run(long_store, ChainConfig(1, window_steps=20))
    assert not by_run(long_store, ChainConfig(8), np.arange(0, 8000, 8))
    assert not by_run(make_store(), ChainConfig(4))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), max_size=8), st.integers(1, 5))
def test_spans_are_maximal_stretches(stretches, searched):
    places = np.concatenate([np.zeros(0, int), *(np.arange(first, first + size) for first, size in stretches)])
    before = runs.SEARCHED_PLACES
    runs.SEARCHED_PLACES = searched
    try:
        spans = find_spans(places, len(places))
        assert spans is not None
        assert np.array_equal(np.concatenate([places[:0], *(p + np.arange(e - b) for b, e, p in spans)]), places)
        assert [b for b, _, _ in spans] == [i for i in range(len(places)) if not i or places[i] != places[i - 1] + 1]
        if spans:
            assert find_spans(places, len(spans) - 1) is None
            assert find_spans(places, len(spans)) == spans
    finally:
        runs.SEARCHED_PLACES = before
