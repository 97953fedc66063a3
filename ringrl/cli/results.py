"""Results of an evaluation in its run folder: summary.json, trials.csv, trials.png, and a video on request."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ringrl_envs

from ringrl.cli.console import output, table_width
from ringrl.cli.environments import Environment, assign_tasks, environment_faults
from ringrl.evaluation.config import EvaluationConfig
from ringrl.evaluation.figures import plot_training_curves, save_png
from ringrl.evaluation.report import runs_figure, runs_table
from ringrl.evaluation.rollout import ActingPolicy, Rollout
from ringrl.evaluation.summary import write_summary, write_trials
from ringrl.evaluation.video import Video, record_video

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training_curves(
    losses: Mapping[int, float], evaluations: Mapping[int, Mapping[str, float]], title: str
) -> "Figure":
    """Plot loss by step, and with several evaluations the returns of their first and last trials, on one axis."""
    history: dict[str, Any] = {"loss": tuple(zip(*sorted(losses.items()), strict=True)) if losses else ((), ())}
    if len(evaluations) > 1:
        scores = dict(sorted(evaluations.items()))
        history["return"] = {
            f"{name} trial": (tuple(scores), tuple(value[name] for value in scores.values()))
            for name in ("first", "last")
        }
    return plot_training_curves(history, title=title, log=("loss",))


def write_results(summary: Mapping[str, Any], found: Rollout, folder: Path) -> None:
    """Write the three files, the summary last, so that a folder with a summary is complete; print the table."""
    write_trials(found, folder / "trials.csv")
    save_png(runs_figure([summary]), folder / "trials.png")
    write_summary(summary, folder)
    console = output()
    console.print(runs_table([summary], width=table_width(console)), end="")


def write_video(
    policy: ActingPolicy, env: Environment, evaluation: EvaluationConfig, trials: int, folder: Path
) -> Video:
    """Write every trial in one environment as video.mp4; raises RingRLError if nothing can be rendered."""
    with environment_faults(env):
        return record_video(
            lambda: ringrl_envs.make(env.spec, render_mode="rgb_array"),
            policy,
            trials=trials,
            seed=evaluation.seed,
            path=folder / "video.mp4",
            task_id=int(assign_tasks(env, evaluation.split, 1)[0]),
        )
