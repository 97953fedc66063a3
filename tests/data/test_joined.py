"""Joined stores against one store written with all their episodes."""

import dataclasses

import numpy as np
import pytest

from ringrl.data import ChainSampler, EpisodeStore, EpisodeStoreWriter, default_target_return, fit_normalization
from ringrl.data.config import ChainConfig, Context, Order
from ringrl.data.joined import in_environment, join_stores
from ringrl.data.joined_column import JoinedColumn
from ringrl.data.statistics import store_statistics
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec, Chain

ACTION = ActionSpec(ActionKind.continuous, 2, (-1.0, -2.0), (1.0, 2.0))


def write_all(path, stores) -> EpisodeStore:
    """One store with the episodes of all, tasks numbered as `join_stores` does."""
    before = 0
    with EpisodeStoreWriter(path, stores[0].spec.observation_size, stores[0].spec.action) as writer:
        for store in stores:
            tasks = np.unique(store.task_ids)
            for episode in range(store.num_episodes):
                steps = slice(store.starts[episode], store.starts[episode] + store.lengths[episode])
                writer.append(
                    store.observations[steps],
                    store.actions[steps],
                    store.rewards[steps],
                    terminated=bool(store.terminated[episode]),
                    task_id=before + int(np.searchsorted(tasks, store.task_ids[episode])),
                    policy=store.metadata["policies"][store.policy_ids[episode]],
                )
            before += len(tasks)
        return writer.finish()


@pytest.fixture
def three(make_store):
    """Two stores of the same task ids, and a view of a third."""
    return [
        make_store(tasks=2, episodes=5, seed=1),
        make_store(tasks=1, episodes=7, seed=2, max_steps=30),
        make_store(tasks=3, episodes=6, seed=3).select(np.arange(2, 17)),
    ]


def test_episodes_are_as_of_one_store(tmp_path, three):
    joined, one = join_stores(three), write_all(tmp_path / "one", three)
    assert joined.spec == one.spec
    assert joined.num_episodes == one.num_episodes
    assert joined.num_steps == one.num_steps
    for name in ("lengths", "returns", "task_ids", "policy_ids", "terminated"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(one, name))
        assert getattr(joined, name).dtype == getattr(one, name).dtype
    for name in ("observations", "actions", "rewards", "returns_to_go"):
        both = zip(joined.iterate_steps(17), one.iterate_steps(17), strict=True)
        for ours, theirs in both:
            np.testing.assert_array_equal(getattr(joined, name)[ours], getattr(one, name)[theirs])
    assert joined.metadata["policies"] == one.metadata["policies"] == ["policy-0", "policy-1"]
    assert joined.step_bytes == sum(store.step_bytes for store in three)
    assert default_target_return(joined) == default_target_return(one)


@pytest.mark.parametrize(
    "config",
    [
        ChainConfig(4),
        ChainConfig(3, Order.random, context=Context.trial),
        ChainConfig(1, window_steps=6, context=Context.trial),
    ],
    ids=["chains", "random", "windows"],
)
def test_chains_are_as_of_one_store(tmp_path, three, config):
    joined, one = join_stores(three), write_all(tmp_path / "one", three)
    for ours, theirs in ((joined, one), (joined.keep_top(0.7), one.keep_top(0.7))):
        scale = fit_normalization(ours)
        assert scale.to_json() == fit_normalization(theirs).to_json()
        both = [ChainSampler(store, config, scale) for store in (ours, theirs)]
        for index in range(3):
            first, second = (sampler.batch(5, index, 16) for sampler in both)
            for field in dataclasses.fields(Chain):
                np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))


def test_statistics_are_as_of_one_store(tmp_path, three):
    joined, one = join_stores(three), write_all(tmp_path / "one", three)
    ours, theirs = store_statistics(joined), store_statistics(one)
    for key in ("observations", "actions", "rewards"):  # sums of other chunks
        for name, values in ours.pop(key).items():
            np.testing.assert_allclose(values, theirs[key][name], rtol=1e-12, atol=1e-12)
        theirs.pop(key)
    names = [task.pop("name") for task in ours["tasks"]]
    assert names == joined.metadata["task_names"]
    assert [task.pop("name") for task in theirs["tasks"]] == [str(k) for k in range(6)]
    assert ours == theirs


def test_tasks_are_named_after_their_stores(three):
    first, second, third = (store.path.name for store in three)
    names = [f"{first}/10", f"{first}/11", second, f"{third}/10", f"{third}/11", f"{third}/12"]
    assert join_stores(three).metadata["task_names"] == names
    assert join_stores(three, ["a", "b", "c"]).metadata["task_names"][:3] == ["a/10", "a/11", "b"]
    again = join_stores([join_stores(three, ["a", "b", "c"]), three[1]], ["all", "d"])
    assert again.metadata["task_names"] == ["all/a/10", "all/a/11", "all/b", "all/c/10", "all/c/11", "all/c/12", "d"]
    assert len(again.folders) == 4
    np.testing.assert_array_equal(again.rewards[:], np.concatenate([np.asarray(s.rewards) for s in [*three, three[1]]]))


def test_fingerprints_follow_the_parts_and_their_order(three):
    fingerprints = [
        join_stores(parts).fingerprint for parts in (three, three[:2], three[1::-1], [three[0], three[1].keep_top(0.5)])
    ]
    assert len({*fingerprints, *(store.fingerprint for store in three)}) == 7
    assert join_stores(three).fingerprint == fingerprints[0]


def write(path, size=3, action=ACTION, reward=1.0, **metadata):
    with EpisodeStoreWriter(path, size, action, metadata=metadata) as writer:
        zeros = np.zeros((4, action.size)) if action.kind is ActionKind.continuous else np.zeros(4, int)
        writer.append(np.zeros((4, size)), zeros, np.full(4, reward))
        return writer.finish()


def test_what_all_stores_say_alike_is_kept(tmp_path):
    alike = {"environment": "Hopper-v5", "ref_min_score": 1.0, "ref_max_score": 2.0}
    first = write(tmp_path / "a", **alike, dataset_id="medium")
    second = write(tmp_path / "b", **(alike | {"ref_max_score": 3.0}))
    third = write(tmp_path / "c", **(alike | {"environment": "Walker2d-v5"}))
    kept = join_stores([first, second]).metadata
    assert {key: kept.get(key) for key in alike} == alike | {"ref_max_score": None}
    assert kept["task_names"] == ["medium", "b"]
    assert not set(alike) & set(join_stores([first, third]).metadata)  # scores are of an environment
    short = write(tmp_path / "d", **alike, environment_spec={"kwargs": {}, "max_episode_steps": 3})
    assert not set(alike) & set(join_stores([first, short]).metadata)  # and of its arguments


def test_what_belongs_to_one_environment_is_found(tmp_path):
    of_run = {"environment": "walker_run-v0", "ref_min_score": 0.0, "ref_max_score": 9.0}
    of_stand = {"environment": "walker_stand-v0", "ref_min_score": 1.0, "ref_max_score": 8.0}
    run, stand = write(tmp_path / "run", **of_run), write(tmp_path / "stand", reward=5.0, **of_stand)
    joined = join_stores([run, stand])
    assert default_target_return(joined) == (4 + 20) / 2
    for store, said, target in ((run, of_run, 4), (stand, of_stand, 20)):
        part = in_environment(joined, said["environment"])
        assert default_target_return(part) == target
        assert {key: part.metadata.get(key) for key in said} == said
        assert part.num_episodes == store.num_episodes
    assert in_environment(joined, "walker_walk-v0") is joined
    assert in_environment(run, "walker_walk-v0") is run


def test_bounds_are_the_union(tmp_path):
    wider = dataclasses.replace(ACTION, low=(-3.0, -1.0), high=(1.0, 5.0))
    joined = join_stores([write(tmp_path / "a"), write(tmp_path / "b", action=wider)])
    assert joined.spec.action == dataclasses.replace(ACTION, low=(-3.0, -2.0), high=(1.0, 5.0))


@pytest.mark.parametrize(
    ("size", "action", "message"),
    [
        (4, ACTION, "a has 3 observations and 2 continuous actions, b has 4 observations and 2 continuous actions"),
        (3, dataclasses.replace(ACTION, size=1, low=(0.0,), high=(1.0,)), "b has 3 observations and 1 continuous"),
        (3, ActionSpec(ActionKind.discrete, 2), "b has 3 observations and 2 discrete actions"),
    ],
)
def test_sets_of_other_sizes_are_both_named(tmp_path, size, action, message):
    with pytest.raises(RingRLError, match=message) as caught:
        join_stores([write(tmp_path / "a"), write(tmp_path / "b", size, action)])
    assert "\n" not in str(caught.value)


def test_a_joined_column_reads_as_one_array(three):
    column = join_stores(three).observations
    assert isinstance(column, JoinedColumn)
    whole = np.concatenate([part.array for part in column.parts])
    assert (column.shape, column.dtype, len(column), column.nbytes) == (
        whole.shape,
        whole.dtype,
        len(whole),
        whole.nbytes,
    )
    border = len(column.parts[0].array)
    rng = np.random.default_rng(0)
    keys = [0, -1, border, np.int64(border - 1), slice(None), slice(3, 9), slice(border - 2, border + 3), slice(5, 5)]
    keys += [slice(9, 3), slice(-4, None), slice(None, None, 7), slice(20, 2, -3), slice(border, border + 2)]
    keys += [rng.integers(-len(whole), len(whole), 50), rng.integers(0, border, (4, 5)), [1, border, 2], []]
    for key in keys:
        expected = whole[np.asarray(key, int)] if isinstance(key, list) else whole[key]
        np.testing.assert_array_equal(column[key], expected)
        assert column[key].dtype == whole.dtype
    np.testing.assert_array_equal(column.take(np.arange(border + 5), axis=0), whole[: border + 5])
    np.testing.assert_array_equal(np.asarray(column), whole)
    assert np.shares_memory(column[3:9], column.parts[0].array)  # nothing is copied within a part
    column.release()
    np.testing.assert_array_equal(column[:], whole)
    for wrong in (len(whole), -len(whole) - 1, np.array([0, len(whole)]), np.array([True]), 1.5):
        with pytest.raises(IndexError):
            column[wrong]
