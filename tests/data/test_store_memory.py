"""A store far larger than the memory limit is opened without being read and sampled in bounded memory."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from ringrl.data import EpisodeStoreWriter
from ringrl.types import ActionKind, ActionSpec

STEPS, EPISODE_STEPS, OBSERVATION_SIZE = 1_000_000, 1000, 105  # 420 MB of observations, as AntMaze's


@pytest.mark.simulators
def test_a_million_steps_open_without_being_read_and_are_sampled_in_bounded_memory(tmp_path):
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(EPISODE_STEPS, OBSERVATION_SIZE)).astype(np.float32)
    with EpisodeStoreWriter(tmp_path / "store", OBSERVATION_SIZE, ActionSpec(ActionKind.discrete, 4)) as writer:
        for index in range(STEPS // EPISODE_STEPS):
            observations[0, 0] = index / 250  # within what a column shows
            writer.append(observations, np.zeros(EPISODE_STEPS, np.int32), np.ones(EPISODE_STEPS))
        writer.finish()
    script = f"""
        import json, sys
        from pathlib import Path
        import psutil
        from ringrl.data import ChainSampler, EpisodeStore, fit_normalization
        from ringrl.data.config import ChainConfig
        resident = psutil.Process().memory_info
        before, peak = resident().rss, 0
        store = EpisodeStore.open({str(tmp_path / "store")!r})
        opened = resident().rss - before
        scale = fit_normalization(store.select(range(100)))
        sampler = ChainSampler(store, ChainConfig(trajectories=4), scale)
        seen = set()
        for index in range(160):
            batch = sampler.batch(0, index, 4)
            seen.update(batch.observations[:, ::1000, 0].ravel().tolist())
            peak = max(peak, resident().rss)
        print(json.dumps([opened, peak - before, len(seen), store.num_steps]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    opened, peak, seen, steps = json.loads(done.stdout)
    assert steps == STEPS
    assert opened < 20e6
    assert seen > 800  # nearly every episode has been touched
    assert peak < 300e6
