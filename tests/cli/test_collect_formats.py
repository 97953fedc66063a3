"""`ringrl collect` by learners and in every format: what is kept, what is refused, what a command leaves."""

import json
from pathlib import Path

import numpy as np
import pytest
from simulators import needs_dm_control

from ringrl.cli.collect import _derive_seed, _first_difference
from ringrl.data import EpisodeStore, open_dataset
from ringrl.data.config import DataConfig, Source

pytestmark = pytest.mark.simulators
SMALL = ("sac.width=8", "sac.batch_size=8", "sac.random_steps=16", "sac.updates_per_call=4", "sac.rnd_width=8")
WALKER = (*("collect", "env=walker_stand", "format=exorl", "num_environments=1"), *SMALL)
SHORT = "++env.kwargs.max_episode_steps=10"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@needs_dm_control
def test_a_set_survives_a_learner_that_ends_no_episode(ringrl, data_cache: Path) -> None:
    command = (*WALKER, "behavior=rnd", "dataset=walker/survives", SHORT)
    assert ringrl(*command, "steps=30").code == 0
    folder = data_cache / "exorl" / "walker" / "survives"
    before = contents(folder)
    assert sum(name.endswith(".npz") for name in before) == 3
    assert "no episode ended" in ringrl(*command, "steps=9", "overwrite=true").error
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".survives")] == []


def test_a_learner_keeps_to_the_split_and_its_actors_act_again(ringrl, data_cache: Path, tmp_path: Path) -> None:
    import minari

    run = tmp_path / "fixed"
    learn = ("collect", "env=hidden_goal_point_maze", "behavior=sac", "split=held_out", "dataset=ringrl/held-v0")
    words = (*learn, *SMALL, "num_environments=4", "reference_episodes=0", f"hydra.run.dir={run}")
    assert ringrl(*words, "steps=200").code == 0
    tasks = open_dataset(DataConfig(Source.minari, "ringrl/held-v0")).task_ids
    assert tasks.min() >= 64, "held-out tasks begin there"
    assert len(list((run / "actors").glob("actor_*.npz"))) == 10
    assert ringrl(*words, "steps=160", "overwrite=true").code == 0
    assert len(list((run / "actors").glob("actor_*.npz"))) == 10, "those of the command before are gone"

    mixture = ("collect", "env=hidden_goal_point_maze", "behavior=mixture", "dataset=ringrl/mixed-v0")
    words = (
        *mixture,
        "num_environments=4",
        "reference_episodes=0",
        "episodes_per_task=1",
        "env.kwargs.training_tasks=16",
    )
    assert ringrl(*words, f"behavior.actors.checkpoint={run}").code == 0
    minari_set = minari.MinariDataset(data_cache / "minari/ringrl/mixed-v0/data")
    assert minari_set.total_episodes == 16
    policies = {told["policy"].split("(")[0] for told in minari_set.storage.get_episode_metadata(range(16))}
    assert policies == {"random", "ou", "sac"}
    (tmp_path / "empty").mkdir()
    said = ringrl(*words, f"behavior.actors.checkpoint={tmp_path / 'empty'}", "overwrite=true").error
    assert "behavior.actors.checkpoint" in said
    assert "neither actors" in said


@needs_dm_control
def test_a_time_limit_goes_with_an_exorl_folder(ringrl, data_cache: Path) -> None:
    command = (*WALKER, "behavior=random", "dataset=walker/limited", SHORT, "episodes_per_task=2")
    assert ringrl(*command).code == 0
    words = ("import", "source=exorl", "path=walker/limited", "task=walker_run", "name=limited", "workers=1")
    assert ringrl(*words).code == 0
    store = EpisodeStore.open(data_cache / "stores" / "limited")
    assert store.metadata["environment_spec"]["max_episode_steps"] == 10
    assert store.lengths.tolist() == [10, 10]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("env=hopper", "format=exorl", "dataset=hopper/random"), "an environment of that domain"),
        (("env=cheetah_run", "format=exorl", "dataset=cheetah"), "DOMAIN/COLLECTOR"),
        (("env=dark_room", "behavior=sac", "dataset=ringrl/x-v0"), "behavior=random"),
        (("env=dark_room", "behavior=ou", "dataset=ringrl/x-v0"), "ringrl/DarkRoom-v0"),
        (("env=hopper", "behavior=sac", "steps=0", "dataset=ringrl/x-v0"), "steps=0"),
        (("env=hopper", "behavior=sac", "+behavior.more.kind=random", "dataset=ringrl/x-v0"), "cannot share"),
        *(
            pytest.param(*case, marks=needs_dm_control)
            for case in (
                (("env=cheetah_run", "format=exorl", "dataset=walker/random"), "an environment of that domain"),
                (("env=walker_stand", "behavior=graded", "dataset=ringrl/x-v0"), "no scripted controller"),
            )
        ),
    ],
)
def test_faults_are_one_line(ringrl, data_cache: Path, words: tuple[str, ...], said: str) -> None:
    assert said in ringrl("collect", "reference_episodes=0", "num_environments=1", *words).error
    assert not list(data_cache.glob("exorl/*/.*"))


def test_reuse_names_the_first_key_that_differs(ringrl, data_cache: Path) -> None:
    command = ("collect", "env=pendulum", "behavior=random", "dataset=ringrl/reused-v0", "episodes_per_task=1")
    small = (*command, "num_environments=1", "reference_episodes=0", "reuse=true")
    assert ringrl(*small).code == 0
    assert "is there already" in ringrl(*small).out
    assert "the same, as hdf5: overwrite=true writes arrow" in ringrl(*small, "format=arrow").out
    [record] = data_cache.glob("minari/ringrl/reused-v0/collect.json")
    earlier = {key: value for key, value in json.loads(record.read_text()).items() if key != "format"}
    record.write_text(json.dumps(earlier))  # of a version that knew one storage
    assert "the same, as arrow: overwrite=true writes hdf5" in ringrl(*small).out
    assert "behavior.random.weight=1.0, not 2.0" in ringrl(*small, "behavior.random.weight=2").error


def test_no_two_seeds_share_episodes() -> None:
    seeds = {_derive_seed(seed, first) for seed in range(40) for first in (0, 256, 512)}
    assert len(seeds) == 120
    assert _derive_seed(7, 0) == 7
    assert _first_difference("a", {"b": [1], "c": 2}, {"b": [1], "c": 3}) == ("a.c", 2, 3)
    assert np.uint32(_derive_seed(0, 256)) == _derive_seed(0, 256)
