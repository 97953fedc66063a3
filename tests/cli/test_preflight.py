"""Errors that would occur after the work are raised before it: nothing is trained, collected or rolled out in vain."""

from pathlib import Path

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest

from ringrl.cli.environments import assign_tasks
from ringrl.config import EnvConfig
from ringrl.data import CollectedEpisode, data_root, write_minari_dataset
from ringrl.errors import RingRLError
from ringrl.evaluation.config import Split

NAME = "mine/preflight-v0"
BOX = gymnasium.spaces.Box(-1, 1, (2,), np.float32)


class Faulty(gymnasium.Env):
    """An environment with a fault of choice: in reset, step or render."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = action_space = BOX

    def __init__(self, fault="", render_mode=None):
        self.fault, self.render_mode = fault, render_mode

    def _do(self, what):
        if what == self.fault:
            raise ZeroDivisionError("of all things")

    def reset(self, *, seed=None, options=None):
        self._do("reset")
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self._do("step")
        return np.zeros(2, np.float32), 0.0, True, False, {}

    def render(self):
        self._do("render")
        return np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(autouse=True)
def registered():
    gymnasium.register("Faulty-v0", Faulty)
    yield
    gymnasium.registry.pop("Faulty-v0")


@pytest.fixture
def data(monkeypatch):
    """A set of two episodes; and training, which would be in vain, fails."""
    episode = CollectedEpisode(np.zeros((3, 2), np.float32), np.zeros((2, 2), np.float32), np.ones(2), True)
    spec = gymnasium.spec("Faulty-v0")
    spec = type(spec)(spec.id, None)
    options = {"observation_space": BOX, "action_space": BOX, "env_spec": spec, "overwrite": True}
    write_minari_dataset(NAME, [episode, episode], cache_root=data_root(), **options)
    monkeypatch.setattr("ringrl.cli.train.train", lambda *_, **__: pytest.fail("it trains"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["env.kwargs.fault=render", "evaluation.video=true"], "No video: Faulty-v0 cannot be rendered here"),
        (["env.kwargs.fault=reset"], "its reset() raises ZeroDivisionError: of all things"),
        (["env.kwargs.fault=step"], "its step() raises ZeroDivisionError: of all things"),
    ],
)
def test_training_does_not_begin(ringrl, data, words, said) -> None:
    keys = [f"++{word}" if word.startswith("env.") else word for word in words]
    outcome = ringrl("train", "data=minari", f"data.name={NAME}", *keys, "chain.trajectories=2", "hydra.run.dir=run")
    assert said in outcome.error
    assert not list(Path("run").glob("**/step_*"))
    assert not list(Path("run").glob(".video_check*"))


def test_an_environment_that_fails_while_collecting_is_one_line(ringrl, data_cache: Path) -> None:
    words = ("env.id=Faulty-v0", "++env.kwargs.fault=step", "dataset=mine/never-v0", "behavior=random")
    outcome = ringrl("collect", *words, "episodes_per_task=1", "num_environments=1", "reference_episodes=0")
    assert outcome.error == "env: Faulty-v0: its step() raises ZeroDivisionError: of all things"
    assert not list(data_cache.rglob("never-v0"))


def test_a_missing_encoder_is_said_before_training(ringrl, data, monkeypatch) -> None:
    def missing():
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    monkeypatch.setattr(imageio_ffmpeg._io, "get_ffmpeg_exe", missing)
    words = ("data=minari", f"data.name={NAME}", "evaluation.video=true", "chain.trajectories=2", "hydra.run.dir=run")
    assert "No ffmpeg exe could be found" in ringrl("train", *words).error
    assert not list(Path("run").glob(".*.mp4"))


def test_a_split_without_tasks_is_not_acted_in() -> None:
    env = EnvConfig("ringrl/HiddenGoalPointMaze-v0", {"training_tasks": 5, "held_out_tasks": 0})
    with pytest.raises(RingRLError, match=r"has no held_out tasks: set evaluation\.split=training"):
        assign_tasks(env, Split.held_out, 4)
    np.testing.assert_array_equal(assign_tasks(env, Split.training, 4), [0, 1, 2, 3])


def test_nothing_is_collected_that_cannot_be_written(ringrl, data_cache, monkeypatch) -> None:
    data_cache.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("MINARI_DATASETS_PATH", "in_the_way/sets")
    Path("in_the_way").write_text("")
    monkeypatch.setattr("ringrl.cli.collect.act", lambda *_, **__: pytest.fail("it collects"))
    words = ("env.id=Faulty-v0", f"dataset={NAME}", "behavior=random", "episodes_per_task=1", "num_environments=1")
    assert "in_the_way" in ringrl("collect", *words, "reference_episodes=0").error
    assert Path("in_the_way").read_text() == ""
