"""What an evaluation leaves in its run folder: summary.json, trials.csv, trials.png, and a video on request."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ringrl_envs
from matplotlib.figure import Figure

from ringrl.cli.environments import dealt_tasks
from ringrl.config import EnvConfig
from ringrl.evaluation.config import EvaluationConfig
from ringrl.evaluation.figures import Curve, plot_trials, save_png
from ringrl.evaluation.policy import Policy
from ringrl.evaluation.rollout import Rollout
from ringrl.evaluation.summary import write_summary, write_trials
from ringrl.evaluation.video import Video, record_video

AGENT_TITLES = {"at": "AT", "dt": "DT", "bc": "BC", "bc10": "BC-10%"}


def title_of(agent: str, label: str = "") -> str:
    """How tables and figures call an agent."""
    return label or AGENT_TITLES.get(agent, agent)


def trials_figure(summary: Mapping[str, Any]) -> Figure:
    """Return by trial with its band, and the returns that count as 0 and 100."""
    low, high = zip(*summary["trial_intervals"], strict=True)
    missing = [float("nan") if value is None else value for value in summary["trial_returns"]]
    bands = [[float("nan") if value is None else value for value in values] for values in (low, high)]
    references = summary.get("references") or {}
    return plot_trials(
        [Curve(title_of(summary["agent"], summary.get("label") or ""), missing, *bands)],
        title=summary["environment"],
        references={{"minimum": "normalised 0", "maximum": "normalised 100"}[k]: v for k, v in references.items()},
    )


def write_results(summary: Mapping[str, Any], found: Rollout, folder: Path) -> Figure:
    """Write the three files; the summary last, so that a folder with one is whole. Returns the figure."""
    figure = trials_figure(summary)
    write_trials(found, folder / "trials.csv")
    save_png(figure, folder / "trials.png")
    write_summary(summary, folder)
    return figure


def write_video(policy: Policy, env: EnvConfig, evaluation: EvaluationConfig, trials: int, folder: Path) -> Video:
    """Every trial in one environment as video.mp4; raises RingRLError where nothing can be rendered."""
    return record_video(
        lambda: ringrl_envs.make(env.id, render_mode="rgb_array", **env.kwargs),
        policy,
        trials=trials,
        seed=evaluation.seed,
        path=folder / "video.mp4",
        task_id=int(dealt_tasks(env, evaluation.split, 1)[0]),
    )
