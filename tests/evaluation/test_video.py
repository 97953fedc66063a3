"""Videos: frames that can be read back, and one clear line where nothing renders."""

import subprocess
import sys

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest

from ringrl.errors import RingRLError
from ringrl.evaluation import video


class Painter(gymnasium.Env):
    """Trials of 4 and 6 steps in turn; the picture's brightness is the step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}  # noqa: RUF012

    def __init__(self, fault=None, shape=(20, 31, 3)):
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.fault, self.shape = fault, shape
        self.trial, self.task, self.closed = -1, None, False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.task = (options or {}).get("task_id", self.task)
        self.clock, self.trial = 0, self.trial + 1
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.clock += 1
        return np.zeros(2, np.float32), 1.0, self.clock >= (4, 6)[self.trial % 2], False, {"success": True}

    def render(self):
        if isinstance(self.fault, Exception):
            raise self.fault
        return None if self.fault == "none" else np.full(self.shape, 25 * self.clock, np.uint8)

    def close(self):
        self.closed = True


class Still:
    def reset(self, num_environments, seed):
        self.full = np.zeros(num_environments, bool)

    def act(self, observations, active):
        return np.zeros(len(active), int)

    def observe(self, rewards, finished, active):
        pass


def record(environment, tmp_path, **kwargs):
    return video.record_video(
        lambda: environment, Still(), **{"trials": 2, "seed": 0, "path": tmp_path / "videos" / "a.mp4", **kwargs}
    )


def decoded(path):
    """Every byte of every frame, through ffmpeg itself: imageio's reader leaves its pipes to the garbage collector."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)


def test_the_mp4_reads_back_with_every_frame(tmp_path):
    environment = Painter()
    result = record(environment, tmp_path, task_id=5, size=64)
    assert result.frames.shape == (5 + 7, 42 + video.BANNER_HEIGHT, 64, 3)  # a frame per reset and step
    assert result.fps == 7
    assert environment.task == 5
    assert environment.closed
    assert [p.name for p in result.path.parent.iterdir()] == ["a.mp4"]
    back = decoded(result.path).reshape(result.frames.shape)
    brightness = result.frames[:, -1, -1, 0].tolist()
    assert brightness == [25 * k for k in (*range(5), *range(7))]
    np.testing.assert_allclose(back[:, -10:, -20:, 0].mean(axis=(1, 2)), brightness, atol=6)


def test_the_banner_tells_trials_apart(tmp_path):
    frames = record(Painter(), tmp_path).frames[:, : video.BANNER_HEIGHT]
    assert len({frame.tobytes() for frame in frames}) == len(frames)


def test_a_long_video_is_thinned(tmp_path):
    frames = record(Painter(), tmp_path, max_frames=5, trials=4).frames
    assert 3 <= len(frames) <= 5


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (RuntimeError("no display\nmore"), r"RuntimeError: no display\)\. .*MUJOCO_GL.*osmesa"),
        (AttributeError(), r"cannot be rendered here \(AttributeError\)"),
        ("none", "returned no frame"),
    ],
)
def test_without_a_renderer_one_line_says_why(fault, message, tmp_path):
    environment, hook = Painter(fault), sys.unraisablehook
    with pytest.raises(RingRLError, match=message) as caught:
        record(environment, tmp_path)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None  # nothing keeps a half-built renderer alive
    assert environment.closed
    assert sys.unraisablehook is hook
    assert not list(tmp_path.iterdir())


def test_an_environment_that_cannot_be_made(tmp_path):
    def broken():
        raise ImportError("no EGL here")

    with pytest.raises(RingRLError, match=r"cannot be made for rendering \(ImportError: no EGL here\)"):
        video.record_video(broken, Still(), trials=1, seed=0, path=tmp_path / "a.mp4")


def test_a_frame_that_is_no_picture(tmp_path):
    with pytest.raises(RingRLError, match="not a picture"):
        record(Painter(shape=(4, 4)), tmp_path)


@pytest.mark.parametrize(
    ("fault", "message"), [(RuntimeError("no display\nmore"), "cannot be rendered here"), ("none", "returned no frame")]
)
def test_the_check_fails_as_the_video_would(fault, message, tmp_path):
    environment = Painter(fault)
    with pytest.raises(RingRLError, match=message):
        video.check_video(lambda: environment, seed=0, folder=tmp_path)
    assert environment.closed
    assert not list(tmp_path.iterdir())


def test_the_check_leaves_nothing(tmp_path):
    environment = Painter()
    video.check_video(lambda: environment, seed=0, folder=tmp_path, task_id=3)
    assert environment.closed
    assert environment.task == 3
    assert not list(tmp_path.iterdir())
