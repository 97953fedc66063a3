"""Videos of an evaluation: all trials of one environment, as mp4 and as an array of frames."""

import contextlib
import dataclasses
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ringrl.errors import RingRLError
from ringrl.evaluation.rollout import ActingPolicy, rollout
from ringrl.files import replacing

BANNER_HEIGHT = 24
BANNER_COLOR, TEXT_COLOR = (28, 30, 34), (240, 240, 240)
REMEDY = (
    "MuJoCo: set MUJOCO_GL=egl (a GPU, or Debian: libegl1) or MUJOCO_GL=osmesa (Debian: libosmesa6); "
    "pygame environments: install pygame. Scores need no renderer: evaluation.video=false."
)


@dataclasses.dataclass(frozen=True)
class Video:
    """Frames (T, height, width, 3) uint8, the number shown per second, and the file they were written to."""

    frames: np.ndarray
    fps: int
    path: Path


def record_video(
    make_environment: Callable[[], gymnasium.Env],
    policy: ActingPolicy,
    *,
    trials: int,
    seed: int,
    path: Path,
    task_id: int = 0,
    size: int = 320,
    max_frames: int = 1500,
) -> Video:
    """Roll the policy out in one environment made with `render_mode="rgb_array"` and write an mp4 of all trials.

    A banner shows trial, step and return so far. `size` is the longer side in pixels; if there are more than
    `max_frames` frames, every second one is dropped until they fit. Raises `RingRLError`, with the reason and what to
    install, if nothing can be rendered or encoded, which `check_video` tests beforehand.
    """
    recorder = FrameRecorder(trials=trials, size=size, max_frames=max_frames)
    with _suppress_destructor_errors():
        environment = _make_environment(make_environment)
        try:
            fps = int(np.clip(environment.metadata.get("render_fps") or 30, 4, 60))
            rollout(OneEnvironment(environment), policy, trials=trials, task_ids=[task_id], seed=seed, frames=recorder)
        finally:
            with contextlib.suppress(Exception):
                environment.close()
            del environment
    frames = np.stack(recorder.frames)
    write_mp4(frames, Path(path), fps)
    return Video(frames, fps, Path(path))


def check_video(
    make_environment: Callable[[], gymnasium.Env], *, seed: int, folder: Path, task_id: int = 0, size: int = 320
) -> None:
    """Raise, as `record_video` would after all trials, if one frame cannot be rendered, encoded or written."""
    with _suppress_destructor_errors():
        environment = _make_environment(make_environment)
        try:
            alone = OneEnvironment(environment)
            alone.reset(seed=seed, options={"task_id": np.array([task_id])})
            frame = _resize(_render_frame(alone), size)
        finally:
            with contextlib.suppress(Exception):
                environment.close()
            del environment
    trial = Path(folder) / f".video_check.{os.getpid()}.mp4"
    try:
        write_mp4(np.stack([frame, frame]), trial, 4)
    finally:
        with contextlib.suppress(OSError):
            trial.unlink()


class FrameRecorder:
    """Collects the frames of environment 0 during a rollout, each under its banner."""

    def __init__(self, *, trials: int, size: int = 320, max_frames: int = 1500):
        self.trials, self.size, self.max_frames = trials, size, max_frames
        self.frames: list[np.ndarray] = []
        self._stride, self._seen = 1, 0

    def capture(self, vector_env: Any, *, trial: int, step: int, trial_return: float) -> None:
        """Store the current frame of environment 0; raises `RingRLError` if it cannot be rendered."""
        self._seen += 1
        if (self._seen - 1) % self._stride:
            return
        frame = _resize(_render_frame(vector_env), self.size)
        self.frames.append(_add_banner(frame, f"trial {trial + 1}/{self.trials}", f"step {step}", trial_return))
        if len(self.frames) > self.max_frames:
            self.frames = self.frames[::2]
            self._stride *= 2


class OneEnvironment(gymnasium.vector.VectorEnv):
    """A single environment as a vector environment of size one, so that a video uses the same rollout."""

    def __init__(self, environment: gymnasium.Env):
        self.environment = environment
        self.num_envs = 1
        self.spec = environment.spec
        self.metadata = {**environment.metadata, "autoreset_mode": gymnasium.vector.AutoresetMode.DISABLED}
        self.single_observation_space = environment.observation_space
        self.single_action_space = environment.action_space
        self.observation_space = gymnasium.vector.utils.batch_space(environment.observation_space, 1)
        self.action_space = gymnasium.vector.utils.batch_space(environment.action_space, 1)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment; `task_id` is unpacked from its array, and `reset_mask` is ignored."""
        options = {key: value for key, value in (options or {}).items() if key != "reset_mask"}
        if "task_id" in options:
            options["task_id"] = int(options["task_id"][0])
        observation, info = self.environment.reset(seed=seed, options=options or None)
        return np.asarray(observation)[None], self._add_info({}, info, 0)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the environment."""
        observation, reward, terminated, truncated, info = self.environment.step(actions[0])
        return (
            np.asarray(observation)[None],
            np.array([reward], np.float64),
            np.array([terminated]),
            np.array([truncated]),
            self._add_info({}, info, 0),
        )

    def render(self) -> tuple[Any, ...]:
        """Render the environment's frame."""
        return (self.environment.render(),)


def write_mp4(frames: np.ndarray, path: Path, fps: int) -> None:
    """Write frames (T, height, width, 3), height and width even, as H.264, atomically."""
    try:
        with replacing(path) as temporary:
            writer: Any = imageio.v2.get_writer(  # type: ignore[call-overload]
                temporary, format="FFMPEG", fps=fps, codec="libx264", macro_block_size=2
            )
            with writer:
                for frame in frames:
                    writer.append_data(frame)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise RingRLError(
            f"{path} cannot be written ({_reason(error)}): see that imageio-ffmpeg works here."
        ) from error


def _make_environment(make_environment: Callable[[], gymnasium.Env]) -> gymnasium.Env:
    """Make the environment, or raise one line without its cause, which would keep half-built renderers alive."""
    try:
        return make_environment()
    except RingRLError:
        raise
    except Exception as error:
        reason = _reason(error)
    gc.collect()
    raise RingRLError(f"No video: the environment cannot be made for rendering ({reason}). {REMEDY}")


def _render_frame(vector_env: Any) -> np.ndarray:
    frame = None
    try:
        frames = vector_env.render()
        frame = None if frames is None else frames[0]
        reason = "its render() returned no frame: is it made with render_mode='rgb_array'?"
    except Exception as error:  # each renderer fails in its own way
        reason = _reason(error)
    if frame is None:
        gc.collect()
        name = vector_env.spec.id if getattr(vector_env, "spec", None) is not None else "the environment"
        raise RingRLError(f"No video: {name} cannot be rendered here ({reason}). {REMEDY}")
    frame = np.asarray(frame)
    if frame.ndim != 3 or frame.shape[2] < 3:
        raise RingRLError(f"No video: a frame of shape {frame.shape} is not a picture (height, width, 3).")
    return frame[..., :3].astype(np.uint8)


def _resize(frame: np.ndarray, size: int) -> np.ndarray:
    """Resize to longer side `size`, both sides even (required by H.264); small pictures keep their sharp edges."""
    scale = size / max(frame.shape[:2])
    height, width = (max(2, 2 * round(side * scale / 2)) for side in frame.shape[:2])
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(frame).resize((width, height), method))


def _add_banner(frame: np.ndarray, trial: str, step: str, trial_return: float) -> np.ndarray:
    height, width = frame.shape[:2]
    picture = Image.new("RGB", (width, height + BANNER_HEIGHT), BANNER_COLOR)
    picture.paste(Image.fromarray(frame), (0, BANNER_HEIGHT))
    draw, font, middle = ImageDraw.Draw(picture), ImageFont.load_default(size=13), BANNER_HEIGHT // 2
    draw.text((8, middle), trial, fill=TEXT_COLOR, font=font, anchor="lm")
    draw.text((width // 2, middle), step, fill=TEXT_COLOR, font=font, anchor="mm")
    draw.text((width - 8, middle), f"return {trial_return:.4g}", fill=TEXT_COLOR, font=font, anchor="rm")
    return np.asarray(picture)


def _reason(error: BaseException) -> str:
    """The error's first line; some graphics errors cannot even be printed."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:
        lines = []
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextlib.contextmanager
def _suppress_destructor_errors() -> Iterator[None]:
    """Context that suppresses tracebacks of half-built renderers on deletion, which would hide the error."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        gc.collect()
        sys.unraisablehook = before
