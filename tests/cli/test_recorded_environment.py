"""Evaluations use the recorded environment, with its arguments, time limit and wrappers."""

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import ringrl_envs
from gymnasium import wrappers
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from minari.data_collector import DataCollector
from recorded_sets import NAME, write_set

from ringrl.cli.environments import find_environment, is_own_environment, vector_environment
from ringrl.config import EnvConfig
from ringrl.data import open_dataset
from ringrl.data.config import DataConfig, Source
from ringrl.data.sources.minari import build_from_minari
from ringrl.errors import RingRLError

pytestmark = pytest.mark.usefixtures("minari_root")


class Monitor(gymnasium.Wrapper):
    """A third-party wrapper: it takes arguments, and records none."""

    def __init__(self, env, file):
        super().__init__(env)


def record(env, steps=9):
    """A Minari set of one episode, as Minari itself collects it: what was done and earned."""
    collector = DataCollector(env)
    collector.action_space.seed(0)
    collector.reset(seed=3)
    actions, rewards = [], []
    for _ in range(steps):
        actions.append(collector.action_space.sample())
        _, reward, terminated, truncated, _ = collector.step(actions[-1])
        rewards.append(reward)
        if terminated or truncated:
            break
    collector.create_dataset(NAME, ref_min_score=0.0, ref_max_score=1.0)
    collector.close()  # its temporary folder too
    return actions, rewards


def pendulum(*layers, **kwargs):
    env = gymnasium.make("Pendulum-v1", **kwargs)
    for layer, *arguments in layers:
        env = layer(env, *arguments)
    return env


LAYERS = {
    "actions": [(wrappers.RescaleAction, -1, 1)],
    "time": [(wrappers.TimeAwareObservation,)],
    "frames": [(wrappers.FrameStackObservation, 3)],
    "rewards": [(wrappers.ClipReward, -2.0, -1.0)],
    "order": [
        (wrappers.FrameStackObservation, 2),
        (wrappers.TimeAwareObservation, False),
        (wrappers.RescaleAction, -1, 1),
    ],
    "delay": [(wrappers.DelayObservation, 2), (wrappers.ClipReward, -2.0, 0.0)],
}
QUIET = pytest.mark.filterwarnings("ignore::UserWarning")  # Minari's and gymnasium's


WAYS = [*((name, "minari") for name in LAYERS), *(("order", how) for how in ("store", "checkpoint", "named"))]


@QUIET
@pytest.mark.parametrize(("layers", "how"), WAYS)
def test_every_way_of_acting_is_in_the_recorded_environment(tmp_path, layers, how) -> None:
    actions, rewards = record(pendulum(*LAYERS[layers], g=5.0, max_episode_steps=7))
    assert len(rewards) == 7
    if how == "store":
        build_from_minari(NAME, tmp_path / "sets" / NAME / "data", tmp_path / "stores" / "kept")
        store = open_dataset(DataConfig(source=Source.store, name="kept"), tmp_path)
    else:
        store = open_dataset(DataConfig(name=NAME), tmp_path)
    env = find_environment(EnvConfig("Pendulum-v1" if how == "named" else ""), store.metadata)
    assert is_own_environment(env, store.metadata)
    if how == "checkpoint":
        metadata = json.loads(json.dumps(env.record()))
        env = find_environment(EnvConfig(), metadata)
        assert is_own_environment(env, metadata)
    with vector_environment(env, 2) as copies:
        seen, _ = copies.reset(seed=[3, 3])
        for step, action in enumerate(actions):
            np.testing.assert_array_equal(seen[1], store.observations[step])
            seen, earned, _, truncated, _ = copies.step(np.stack([action, action]))
            assert earned[1] == pytest.approx(rewards[step], rel=1e-6)
        assert truncated.all()
    alone = ringrl_envs.make(env.spec, render_mode="rgb_array")
    assert alone.render_mode == "rgb_array"
    np.testing.assert_array_equal(alone.reset(seed=3)[0], store.observations[0])
    alone.close()


@QUIET
def test_wrappers_that_gymnasium_has_moved_are_found(tmp_path) -> None:
    spec = pendulum(*LAYERS["actions"]).spec
    [rescale] = spec.additional_wrappers
    moved = WrapperSpec(rescale.name, "gymnasium.wrappers.rescale_action:RescaleAction", rescale.kwargs)
    spec.additional_wrappers = (WrapperSpec("RecordVideo", "gymnasium.wrappers.record_video:RecordVideo", {}), moved)
    env = find_environment(EnvConfig(), write_set(tmp_path, spec)[0])
    made = ringrl_envs.make(env.spec)
    assert (made.action_space.low, made.action_space.high) == (-1, 1)


@QUIET
def test_arguments_on_top_make_it_another_environment(tmp_path) -> None:
    record(pendulum(*LAYERS["actions"], g=5.0, max_episode_steps=7))
    metadata = open_dataset(DataConfig(name=NAME), tmp_path).metadata
    env = find_environment(EnvConfig(kwargs={"g": 9.0, "max_episode_steps": 5}), metadata)
    assert (env.spec.kwargs, env.spec.max_episode_steps) == ({"g": 9.0}, 5)
    assert [wrapper.name for wrapper in env.spec.additional_wrappers] == ["RescaleAction"]
    assert not is_own_environment(env, metadata)
    assert is_own_environment(find_environment(EnvConfig("Pendulum-v1", {"g": 5.0}), metadata), metadata)
    other = find_environment(EnvConfig("CartPole-v1"), metadata)
    assert (other.spec.id, other.spec.additional_wrappers) == ("CartPole-v1", ())
    assert not is_own_environment(other, metadata)


@QUIET
def test_a_wrapper_that_cannot_be_rebuilt_is_said(tmp_path) -> None:
    metadata, _ = write_set(tmp_path, pendulum((wrappers.RescaleAction, -1, 1), (Monitor, "log.csv")).spec)
    with pytest.raises(
        RingRLError, match=r"Monitor \(.*arguments were not recorded.*env\.id=Pendulum-v1.*env\.id=MODULE:ID"
    ):
        find_environment(EnvConfig(), metadata)
    said = []
    env = find_environment(EnvConfig("Pendulum-v1"), metadata, warn=said.append)
    assert [wrapper.name for wrapper in env.spec.additional_wrappers] == ["RescaleAction"]
    assert len(said) == 1
    assert "acts without" in said[0]
    assert "Monitor" in said[0]
    assert not is_own_environment(env, metadata)  # so no score is normalized by what it was not recorded with


@QUIET
def test_running_statistics_are_said_to_begin_anew(tmp_path) -> None:
    record(pendulum((wrappers.NormalizeObservation,)))
    said = []
    find_environment(EnvConfig(), open_dataset(DataConfig(name=NAME), tmp_path).metadata, warn=said.append)
    assert len(said) == 1
    assert "NormalizeObservation" in said[0]
    assert "running statistics" in said[0]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (EnvSpec("Trap-v0", "os:mkdir", kwargs={"path": "sprung"}), "os:mkdir is no class of environments"),
        (EnvSpec("Trap-v0", "pathlib:Path", kwargs={"x": 1}), "pathlib:Path is no class of environments"),
        (EnvSpec("Trap-v0", "no_such_module:Env"), "cannot import 'no_such_module'"),
        (
            EnvSpec(
                "Pendulum-v1",
                "gymnasium.envs.classic_control.pendulum:PendulumEnv",
                additional_wrappers=(WrapperSpec("mkdir", "os:mkdir", {"path": "sprung"}),),
            ),
            r"os:mkdir\) cannot be rebuilt",
        ),
    ],
)
def test_a_record_calls_nothing_but_environments_and_wrappers(tmp_path, monkeypatch, spec, said) -> None:
    monkeypatch.chdir(tmp_path)
    metadata, _ = write_set(tmp_path, spec)
    with pytest.raises(RingRLError, match=said) as caught:
        find_environment(EnvConfig(), metadata)
    assert "\n" not in str(caught.value)
    assert "env.id=MODULE:ID" in str(caught.value)
    assert not Path("sprung").exists()


def test_a_record_of_a_registered_id_cannot_call_something_else(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    metadata, _ = write_set(tmp_path, EnvSpec("Pendulum-v1", "os:mkdir", kwargs={"g": 3.0}))
    env = find_environment(EnvConfig(), metadata)
    assert env.spec.entry_point == gymnasium.spec("Pendulum-v1").entry_point
    assert env.spec.kwargs == {"g": 3.0}
    assert not Path("sprung").exists()


@pytest.mark.parametrize(
    "part", [{"kwargs": [1]}, {"additional_wrappers": [7]}, {"additional_wrappers": [{}]}, {"unrecorded": 3}]
)
def test_a_damaged_record_is_one_line(part) -> None:
    metadata = {"environment": "Pendulum-v1", "environment_spec": {"kwargs": {}, **part}}
    with pytest.raises(RingRLError, match="its record is damaged"):
        find_environment(EnvConfig(), metadata)


@QUIET
def test_recording_wrappers_do_not_write_again(tmp_path) -> None:
    env = gymnasium.make("Pendulum-v1", render_mode="rgb_array")
    recorder = WrapperSpec(
        "RecordVideo", "gymnasium.wrappers.rendering:RecordVideo", {"video_folder": str(tmp_path / "v")}
    )
    spec = env.spec
    spec.additional_wrappers = (recorder, wrappers.RescaleAction.wrapper_spec(min_action=-1, max_action=1))
    metadata, _ = write_set(tmp_path, spec)
    again = find_environment(EnvConfig(), metadata)
    assert [wrapper.name for wrapper in again.spec.additional_wrappers] == ["RescaleAction"]
    assert "render_mode" not in again.spec.kwargs
