"""experiments/data_scale, small and in this process."""

import importlib.util
import sys
from pathlib import Path

import pytest

from experiments.lib.random_data import write_random_store

SCRIPT = Path(__file__).parents[2] / "experiments" / "data_scale" / "run.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/smaps_rollup")
def test_the_experiment_measures(tmp_path):
    specification = importlib.util.spec_from_file_location("data_scale", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    sizes = {"observation_size": script.OBSERVATION_SIZE, "action_size": script.ACTION_SIZE}
    write_random_store(tmp_path / "store", episodes=6, episode_steps=script.EPISODE_STEPS, **sizes, distinct=False)
    figures = script.measure(tmp_path / "store", trajectories=4, chains=2, rounds=1)
    assert figures["store_mb"] == pytest.approx(6 * 1000 * 4 * (24 + 6 + 2) / 1e6, abs=0.1)
    assert set(figures["chains_per_second"]) == {"one_thread", "two_threads", "by_step"}
    assert figures["anonymous_mb"] > 1
