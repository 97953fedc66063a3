import dataclasses
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from ringrl.data import ChainSampler, Loader, fit_normalization, make_loader
from ringrl.data.config import ChainConfig


@pytest.fixture
def sampler(make_store):
    store = make_store()
    return ChainSampler(store, ChainConfig(trajectories=3), fit_normalization(store))


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_the_stream_is_the_same_whatever_the_start(sampler, threads):
    expected = [sampler.batch(7, index, 4) for index in range(8)]
    for start in (0, 3, 7):
        with make_loader(sampler, seed=7, batch_size=4, start=start, stop=8, threads=threads, prefetch=2) as loader:
            batches = list(loader)
            assert loader.next_index == 8
        assert len(batches) == 8 - start
        for got, wanted in zip(batches, expected[start:], strict=True):
            np.testing.assert_array_equal(got.observations, wanted.observations)
            np.testing.assert_array_equal(got.return_to_go, wanted.return_to_go)


def test_it_goes_on_for_ever_without_a_stop(sampler):
    with make_loader(sampler, seed=0, batch_size=2, start=10**6) as loader:
        np.testing.assert_array_equal(next(loader).observations, sampler.batch(0, 10**6, 2).observations)
        assert loader.next_index == 10**6 + 1
        assert loader.wait_seconds > 0


def test_a_loader_left_open_does_not_hold_up_the_interpreter(sampler, tmp_path):
    script = f"""
        from ringrl.data import ChainSampler, EpisodeStore, fit_normalization, make_loader
        from ringrl.data.config import ChainConfig
        store = EpisodeStore.open({str(sampler.store.path)!r})
        sampler = ChainSampler(store, ChainConfig(trajectories=3), fit_normalization(store))
        loader = make_loader(sampler, seed=0, batch_size=4, threads=2)
        next(loader)
        print("read")
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("config", [ChainConfig(trajectories=3), ChainConfig(trajectories=1, window_steps=4)])
def test_parts_are_those_of_the_batch(make_store, config, threads):
    store = make_store()
    sampler = ChainSampler(store, config, fit_normalization(store))
    parts = [(slice(0, 2), np.arange(0, sampler.steps, 2)), (slice(2, 4), np.arange(1, sampler.steps + 2))]

    def prepare(index):
        episodes, first_steps = sampler.draw(7, index, 4)
        return [sampler.assemble(episodes[rows], first_steps[rows], places) for rows, places in parts]

    with Loader(prepare, start=3, stop=6, threads=threads) as loader:
        batches = list(loader)
    assert len(batches) == 3
    for index, batch in enumerate(batches, 3):
        assert len(batch) == 2
        for got, (rows, places) in zip(batch, parts, strict=True):
            expected = sampler.batch(7, index, 4, rows, places)
            for field in dataclasses.fields(got):
                np.testing.assert_array_equal(getattr(got, field.name), getattr(expected, field.name))
