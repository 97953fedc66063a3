"""A trained run as a policy."""

from pathlib import Path

import gymnasium

from ringrl.data.store_format import spec_from_json
from ringrl.evaluation.actions import recorded_space
from ringrl.evaluation.config import EvaluationChoice, WhenFull
from ringrl.evaluation.gymnasium_policy import Policy
from ringrl.evaluation.policy import make_policy
from ringrl.runs.acting import acting_config
from ringrl.runs.agent import load_agent
from ringrl.training.checkpoint import Which


def load_policy(
    run: str | Path,
    which: Which = "last",
    *,
    target_return: float | None = None,
    sample: bool | None = None,
    temperature: float | None = None,
    context_steps: int | None = None,
    when_full: WhenFull | None = None,
    action_space: gymnasium.Space | None = None,
) -> Policy:
    """The policy of a trained run, which acts as `ringrl eval` does with the same settings and seed.

    Args:
        run: the folder of a run of `ringrl train`, or of one saved with `describe_run`; or one of its checkpoints.
        which: "last", "best", or the number of a step.
        target_return: the return that the agent is asked for, in the environment's units.
        sample: sample actions, else take the likeliest.
        temperature: of sampled actions; below 1 is closer to the likeliest.
        context_steps: steps of history kept; 0 means as many as in training.
        when_full: what to do when the history is full: forget the oldest whole trial, or stop.
        action_space: of one environment; by default vectors (A,) within the bounds of the data, or its choices. Give
            the environment's where that is unbounded, of whole numbers, or of another shape or dtype.

    Each setting that is not given is as the run was evaluated.

    Returns:
        A policy without any history, seeded with 0.

    Raises:
        RingRLError: there is no checkpoint that can be used, a setting is impossible, or the action space is another
            than the agent was trained on.
    """
    loaded = load_agent(run, which)
    choice = EvaluationChoice(
        target_return=target_return,
        sample=sample,
        temperature=temperature,
        context_steps=context_steps,
        when_full=when_full,
    )
    evaluation = choice.of_run(loaded.command.evaluation)
    acting = acting_config(evaluation, loaded.command, loaded.agent.spec, loaded.chain_steps, loaded.target_return)
    vector = make_policy(loaded.agent, loaded.parameters, loaded.normalization, acting)
    recorded = spec_from_json(loaded.metadata["spec"]).action
    return Policy(vector, recorded_space(recorded) if action_space is None else action_space)
