"""Settings of acting in the evaluation of a run."""

from ringrl.config import TrainCommand
from ringrl.errors import RingRLError
from ringrl.evaluation.config import EvaluationConfig, WhenFull
from ringrl.evaluation.policy import ActingConfig
from ringrl.types import Context, DataSpec

FEWEST_TRIALS = 8


def acting_config(
    evaluation: EvaluationConfig, command: TrainCommand, spec: DataSpec, chain_steps: int, target_return: float
) -> ActingConfig:
    """How the agent of `command` acts in an evaluation: with as long a history as in training, unless set otherwise."""
    trained = {
        Context.chain: chain_steps,
        Context.trial: command.chain.window_steps or spec.max_episode_steps,
        Context.step: 1,
    }
    context = command.chain.context
    capacity = evaluation.context_steps or trained[context]
    if context is Context.chain and evaluation.when_full is WhenFull.stop and capacity < spec.max_episode_steps:
        raise RingRLError(
            f"evaluation.context_steps={capacity} is less than an episode ({spec.max_episode_steps} steps), so with "
            "evaluation.when_full=stop no trial could start: raise it, or set when_full=drop."
        )
    return ActingConfig(
        target_return=target_return if evaluation.target_return is None else evaluation.target_return,
        capacity=capacity,
        sample=evaluation.sample,
        temperature=evaluation.temperature,
        when_full=evaluation.when_full,
    )


def count_trials(evaluation: EvaluationConfig, command: TrainCommand) -> int:
    """Number of trials of an evaluation: the number of trajectories in a chain, at least 8, unless set otherwise.

    An agent trained on single trajectories gets as many trials as the others, so that its best-of-n is comparable.
    """
    return evaluation.trials or max(command.chain.trajectories, FEWEST_TRIALS)
