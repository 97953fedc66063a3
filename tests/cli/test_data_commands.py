"""`ringrl import` and `ringrl data` from the command line: what they leave, and what they refuse."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from d4rl_files import write_d4rl_file
from ringrl_envs.dmc.build import describe_install

from ringrl.data import EpisodeStore, EpisodeStoreWriter
from ringrl.types import ActionKind, ActionSpec

pytestmark = pytest.mark.simulators

HOPPER = "hopper-medium-v2"


def hopper_file(path: Path, episodes: int = 6) -> Path:
    """A D4RL file of made-up numbers in Hopper's shapes."""
    rng = np.random.default_rng(0)
    made = [
        types.SimpleNamespace(
            observations=rng.normal(size=(steps + 1, 11)),
            actions=rng.uniform(-1, 1, (steps, 3)),
            rewards=rng.uniform(0, 2, steps),
            terminations=np.arange(steps) == steps - 1,
        )
        for steps in rng.integers(3, 9, episodes)
    ]
    return write_d4rl_file(path, made)


def newest(folder: Path) -> Path:
    return max(folder.iterdir(), key=lambda path: path.name)


def import_hopper(ringrl, tmp_path: Path, name: str, *words: str):
    file = hopper_file(tmp_path / "hopper_medium-v2.hdf5")
    return ringrl("import", "source=d4rl", f"path={file}", f"name={name}", *words)


def test_import_then_look(ringrl, data_cache: Path, tmp_path: Path) -> None:
    outcome = import_hopper(ringrl, tmp_path, "look")
    assert outcome.code == 0, outcome.err
    assert "ringrl train data=store data.name=look" in outcome.out
    store = EpisodeStore.open(data_cache / "stores" / "look")
    summary = json.loads((newest(tmp_path / "runs/import/look") / "summary.json").read_text())
    assert summary["environment"] == "Hopper-v4"
    assert summary["data_fingerprint"] == store.fingerprint
    assert summary["references"] == {"ref_min_score": pytest.approx(-20.272305), "ref_max_score": pytest.approx(3234.3)}

    outcome = ringrl("data")
    assert outcome.code == 0, outcome.err
    assert "look" in outcome.out
    assert "Hopper-v4" in outcome.out

    outcome = ringrl("data", "data=store", "data.name=look", "data.top_fraction=0.5")
    assert outcome.code == 0, outcome.err
    assert "3 episodes" in outcome.out
    assert "no fault found" in outcome.out
    folder = newest(tmp_path / "runs/data/data")
    assert (folder / "returns.png").stat().st_size > 1000
    told = json.loads((folder / "summary.json").read_text())
    assert told["episodes"] == 3
    assert told["returns"]["maximum"] == pytest.approx(store.returns.max())


def test_a_name_is_taken_once(ringrl, data_cache: Path, tmp_path: Path) -> None:
    assert import_hopper(ringrl, tmp_path, "twice").code == 0
    before = (data_cache / "stores" / "twice" / "metadata.json").read_bytes()
    assert "overwrite=true" in import_hopper(ringrl, tmp_path, "twice").error
    assert import_hopper(ringrl, tmp_path, "twice", "overwrite=true").code == 0
    assert (data_cache / "stores" / "twice" / "metadata.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("source=d4rl", "path=nowhere/hopper_medium-v2.hdf5"), "no such file"),
        (("source=d4rl", "path=mine.hdf5"), "task=NAME"),
        (("source=d4rl", "path=mine.hdf5", "task=hoper-medium-v2"), HOPPER),
        (("source=d4rl", "path=''"), "path is needed"),
        (("source=exorl", "path=nowhere"), "task=DOMAIN_TASK"),
        (("source=exorl", "path=nowhere", "task=walker_stand"), "no such folder"),
        (("source=minari", "path=nowhere"), "Minari id"),
        (("source=minari", "path=D4RL/pen/human-v2"), "download=true"),
        (("source=minari", "path=D4RL/pen/human-v2", "task=pen"), "task means nothing"),
        (("source=hdf5", "path=x"), "source"),
        (("source=d4rl", "path=x", "limit=3"), "limit means nothing"),
        (("source=exorl", "path=x", "task=walker_stand", "workers=-1"), "workers=-1"),
        (("source=exorl", "path=x", "task=walker_stand", "limit=0"), "limit=0"),
    ],
)
def test_faults_are_one_line_and_leave_nothing(ringrl, data_cache: Path, words: tuple[str, ...], said: str) -> None:
    assert said in ringrl("import", "name=refused", *words).error
    assert not (data_cache / "stores" / "refused").exists()
    assert not list((data_cache / "stores").glob(".refused*"))


def test_an_unknown_task_of_a_domain_names_the_nearest(ringrl, tmp_path: Path) -> None:
    (tmp_path / "buffer").mkdir()
    said = ringrl("import", "source=exorl", f"path={tmp_path}", "task=walker_sit", "name=x").error
    assert "walker_stand" in said


@pytest.mark.parametrize(
    "words",
    [
        ("import", "source=exorl", "path=.", "task=walker_run", "name=x"),
        ("collect", "env=walker_run", "behavior=random", "format=exorl", "dataset=walker/x"),
        ("collect", "env.id=ringrl/dmc_walker_run-v0", "behavior=random", "dataset=ringrl/x-v0"),
    ],
)
def test_without_dm_control_one_line_says_what_to_install(ringrl, monkeypatch, words: tuple[str, ...]) -> None:
    monkeypatch.setitem(sys.modules, "dm_control", None)
    monkeypatch.delitem(sys.modules, "ringrl_envs.dmc.suite", raising=False)
    said = ringrl(*words).error
    assert "dm_control's walker_run cannot be made" in said
    assert said.endswith(f": {describe_install()}.")


def test_data_lists_what_is_damaged(ringrl, data_cache: Path) -> None:
    folder = data_cache / "stores" / "broken"
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text("{")
    try:
        outcome = ringrl("data")
        assert outcome.code == 0, outcome.err
        assert "not valid JSON" in " ".join(outcome.out.split())
    finally:
        (folder / "metadata.json").unlink()
        folder.rmdir()


def test_data_finds_faults_and_names_them(ringrl, tmp_path: Path) -> None:
    path = tmp_path / "store"
    with EpisodeStoreWriter(path, 2, ActionSpec(ActionKind.continuous, 1, (-1.0,), (1.0,))) as writer:
        for _ in range(3):
            writer.append(np.zeros((4, 2)), np.zeros((4, 1)), np.ones(4))
        writer.finish()
    column = np.lib.format.open_memmap(path / "observations.npy", mode="r+")
    column[5, 1] = np.nan
    column.flush()
    outcome = ringrl("data", "data=store", f"data.name={path}")
    assert "faults" in outcome.error
    assert f"{path / 'observations.npy'}, episode 1, step 1, observations" in outcome.err


def test_filters_that_leave_nothing_say_what_there_is(ringrl, tmp_path: Path) -> None:
    assert import_hopper(ringrl, tmp_path, "filtered").code == 0
    said = ringrl("data", "data=store", "data.name=filtered", "data.min_return=1e6").error
    assert "min_return" in said
    assert "filtered" in ringrl("data", "data=store", "data.name=filterd").error
