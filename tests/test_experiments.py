"""Every measuring script of experiments/ runs with small sizes; tests of the code that the scripts share."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from experiments.lib.cells import CellFile, digest_settings, make_cell_parser
from experiments.lib.random_data import make_random_chain, write_random_store
from experiments.lib.results import make_table
from experiments.lib.sizes import list_targets, load_model_config
from ringrl.data import EpisodeStore

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
SCRIPTS = (
    *("ablation/run.py", "attention/gpu_kernels.py", "benchmarks/decode.py", "benchmarks/loader.py"),
    *("benchmarks/train_step.py", "block_size/run.py", "data_scale/run.py", "environment_speed/run.py"),
    *("expected_mfu/run.py", "h200/run.py", "max_context/run.py", "memory_formula/run.py", "more_context/run.py"),
    *("plan_validation/run.py", "scaling/communication.py", "scaling/loading.py", "scaling/memory.py"),
)


def digest_results() -> dict[str, str]:
    """What all results files hold."""
    files = (file for file in EXPERIMENTS.glob("*/results/*") if file.is_file())
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.scale
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_script_runs_small_and_leaves_the_results_alone(
    script: str, tmp_path: Path, compiled_fast: dict[str, str]
) -> None:
    if "train_step" in script and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch, which this script alone compares with, is not installed")
    before = digest_results()
    words = ["CartPole-v1"] if "environment_speed" in script else []
    command = [sys.executable, str(EXPERIMENTS / script), *words, "--smoke"]
    environment = {**os.environ, **compiled_fast, "RINGRL_DATA": str(tmp_path)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert digest_results() == before


def test_every_script_is_run_by_a_test() -> None:
    elsewhere = {  # needs a compiler of TPUs; runs for hours; searches; run by tests of their own, or in simulators
        *("attention/schedules.py", "in_context/run.py", "ant_gait/search.py", "quickstart/run.py"),
        *("restart/run.py", "restart/trainee.py", "collected/run.py", "environment_speed/bare_loop.py"),
        *("data_import/d4rl.py", "data_import/exorl.py"),
    }
    found = {file.relative_to(EXPERIMENTS).as_posix() for file in EXPERIMENTS.glob("[!l]*/*.py")}
    assert found == {*SCRIPTS, *elsewhere}


class Computed:
    """Counts computations."""

    def __init__(self) -> None:
        self.keys: list[Any] = []

    def __call__(self, settings: int) -> dict[str, int]:
        self.keys.append(settings)
        return {"square": settings**2}


def fill(file: CellFile, cells: dict[str, int], *words: str) -> tuple[list[int], dict[str, dict[str, Any]]]:
    """The computed cells, and all cells afterwards."""
    computed = Computed()
    found = file.fill(cells, computed, make_cell_parser("").parse_args(words), lambda settings: {"n": settings})
    return computed.keys, found


def test_cells_are_kept_until_their_settings_change(tmp_path: Path) -> None:
    file = CellFile(tmp_path / "results" / "squares.json", "squares")
    assert file.read() == {}
    computed, found = fill(file, {"two": 2, "three": 3}, "--only", "two")
    assert computed == [2]
    assert list(found) == ["two"]
    computed, found = fill(file, {"two": 2, "three": 3})
    assert computed == [3], "what is there is kept"
    assert {key: cell["square"] for key, cell in found.items()} == {"two": 4, "three": 9}
    assert found["two"]["computed"]["settings"] == {"n": 2}
    assert fill(file, {"two": -2, "three": 3})[0] == [-2], "other settings under the same key"
    assert fill(file, {"two": -2, "three": 3}, "--again")[0] == [-2, 3]
    file.put("old", {"square": 16})
    assert fill(file, {"old": 4})[0] == [], "a result older than the record of settings counts"


def test_jobs_side_by_side_keep_each_others_cells(tmp_path: Path) -> None:
    file, both = CellFile(tmp_path / "cells.json", "cells"), threading.Barrier(2, timeout=60)

    def compute(settings: int) -> dict[str, int]:
        both.wait()
        return {"value": settings}

    found = file.fill({"a": 1, "b": 2}, compute, make_cell_parser("").parse_args(["--jobs", "2"]))
    assert {key: cell["value"] for key, cell in found.items()} == {"a": 1, "b": 2}
    assert set(file.read()) == {"a", "b"}


def test_an_error_in_a_cell_is_raised_and_leaves_the_others(tmp_path: Path) -> None:
    file = CellFile(tmp_path / "cells.json", "cells")
    with pytest.raises(ZeroDivisionError):
        file.fill({"a": 1, "b": 0}, lambda n: {"inverse": 1 / n}, make_cell_parser("").parse_args([]))
    assert set(file.read()) == {"a"}


def test_a_table() -> None:
    assert make_table(("name", "size"), [("a", 1), ("b", 2.5)]) == (
        "| name | size |\n| --- | ---: |\n| a | 1 |\n| b | 2.5 |"
    )
    assert digest_settings("a") != digest_settings("b")


def test_named_sizes() -> None:
    assert load_model_config("7b").width == 4096
    assert {"a100x8", "tpu_v4_1024"} <= {target.name for target in list_targets()}


@pytest.mark.parametrize("distinct", [True, False])
def test_a_random_store(tmp_path: Path, distinct: bool) -> None:
    sizes = {"episodes": 4, "episode_steps": 5, "observation_size": 3, "action_size": 2, "tasks": 2}
    write_random_store(tmp_path / "store", **sizes, distinct=distinct)
    store = EpisodeStore.open(tmp_path / "store")
    assert (store.num_episodes, store.num_steps) == (4, 20)
    assert store.task_ids.tolist() == [0, 1, 0, 1]
    assert len(set(store.returns.tolist())) == 4
    chain = make_random_chain(2, 10, 3, 2, episode_steps=5)
    assert chain.timesteps[1].tolist() == [*range(5)] * 2
    assert chain.completion[0].nonzero()[0].tolist() == [4, 9]
