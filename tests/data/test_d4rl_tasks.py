"""D4RL's tasks: the names of their files, their reference scores, their environments."""

from pathlib import Path

import pytest

from ringrl.data.reference_scores import REFERENCE_SCORES, reference_of_minari, reference_of_task
from ringrl.data.sources.d4rl import task_of_file
from ringrl.data.sources.d4rl_tasks import find_task
from ringrl.errors import RingRLError

PUBLISHED = {
    "hopper_medium_replay-v2.hdf5": "hopper-medium-replay-v2",
    "hopper_medium_v2.hdf5": "hopper-medium-v2",
    "halfcheetah-full-replay-v1.h5": "halfcheetah-full-replay-v1",
    "walker_mixed.hdf5": "walker2d-medium-replay-v0",
    "ant_random_expert.hdf5": "ant-random-expert-v0",
    "maze2d-open-sparse.hdf5": "maze2d-open-v0",
    "maze2d-eval-large-dense-v1.hdf5": "maze2d-eval-large-dense-v1",
    "Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse.hdf5": "antmaze-umaze-v0",
    "Ant_maze_medium_noisy_multistart_True_multigoal_False_sparse.hdf5": "antmaze-medium-play-v1",
    "Ant_maze_hardest-maze_noisy_multistart_True_multigoal_True_sparse_fixed.hdf5": "antmaze-large-diverse-v2",
    "mini_kitchen_microwave_kettle_light_slider-v0.hdf5": "kitchen-complete-v0",
    "kitchen_microwave_kettle_bottomburner_light-v0.hdf5": "kitchen-mixed-v0",
    "pen-v0_demos_clipped.hdf5": "pen-human-v0",
    "relocate-demos-v0-bc-combined.hdf5": "relocate-cloned-v0",
    "door-expert-v1.hdf5": "door-expert-v1",
}


def test_published_file_names_tell_their_task():
    assert {name: task_of_file(Path("/data") / name) for name in PUBLISHED} == PUBLISHED


def test_another_file_name_asks_for_the_task():
    with pytest.raises(RingRLError, match=r"my-hopper.hdf5: .*task=NAME"):
        task_of_file("my-hopper.hdf5")
    with pytest.raises(RingRLError, match="hopper-medium-v3 is not a task of D4RL: nearest are hopper-medium-v"):
        find_task("hopper-medium-v3")


def test_every_task_has_scores_and_an_environment():
    assert len(REFERENCE_SCORES) == 148
    for name, (low, high) in REFERENCE_SCORES.items():
        task = find_task(name)
        assert low < high
        assert task.observation_size > 0 < task.action_size
    assert reference_of_task("maze2d-umaze-v1") == (23.85, 161.86)
    assert reference_of_task("hopper-medium-v3") is None


def test_minari_sets_have_d4rl_s_scores_only_where_they_mean_the_same():
    assert reference_of_minari("D4RL/antmaze/large-diverse-v1") == (0.0, 1.0)
    assert reference_of_minari("D4RL/kitchen/mixed-v2") == (0.0, 4.0)
    assert reference_of_minari("D4RL/pen/human-v2") == reference_of_task("pen-human-v1")
    assert reference_of_minari("D4RL/pointmaze/large-v2") is None
    assert reference_of_minari("mujoco/hopper/medium-v0") is None
