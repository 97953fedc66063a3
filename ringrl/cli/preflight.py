"""Early checks of what would fail only at the end of a command: acting in the environment, recording a video."""

from pathlib import Path

import numpy as np
import ringrl_envs
from ringrl_envs.sync_vector import EnvironmentFault

from ringrl.cli.environments import Environment, assign_tasks, environment_faults, vector_environment
from ringrl.errors import RingRLError
from ringrl.evaluation.config import EvaluationConfig
from ringrl.evaluation.rollout import check_vector_env
from ringrl.evaluation.video import check_video
from ringrl.types import DataSpec


def check_acting(env: Environment, spec: DataSpec, evaluation: EvaluationConfig) -> None:
    """Check acting: make the environment, compare its spaces with the data's, reset it, and take one step.

    Raises:
        RingRLError: the environment does not match the data, or cannot be made, reset or stepped.
    """
    tasks = assign_tasks(env, evaluation.split, 1)
    with vector_environment(env, 1) as environments:
        check_vector_env(environments, spec)
        environments.action_space.seed(evaluation.seed)
        what = "reset()"
        try:
            environments.reset(seed=evaluation.seed, options={"reset_mask": np.ones(1, bool), "task_id": tasks})
            what = "step()"
            environments.step(environments.action_space.sample())
        except (RingRLError, EnvironmentFault):
            raise
        except Exception as error:  # the environment's own code may raise anything
            line = (str(error).splitlines() or [""])[0]
            raise RingRLError(
                f"env {env.id}: its first {what} raises {type(error).__name__}: {line} (--debug shows where)."
            ) from error


def check_filming(env: Environment, evaluation: EvaluationConfig, folder: Path) -> None:
    """Check video: render one frame of the environment and encode it, without leaving files.

    Raises:
        RingRLError: a frame cannot be rendered, encoded or written to `folder`; the error includes the remedy.
    """
    task = int(assign_tasks(env, evaluation.split, 1)[0])
    with environment_faults(env):
        check_video(
            lambda: ringrl_envs.make(env.spec, render_mode="rgb_array"),
            seed=evaluation.seed,
            folder=folder,
            task_id=task,
        )
