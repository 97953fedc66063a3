"""Loading of a trained run as a policy."""

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
    """Load the policy of a trained run, which acts as `ringrl eval` does with the same settings and seed.

    Args:
        run: the folder of a run of `ringrl train`, or of one saved with `describe_run`; or one of its checkpoints.
        which: the checkpoint: "last", "best", or the number of a step.
        target_return: the return that the agent is conditioned on, in the environment's units.
        sample: sample actions, else take the most likely one.
        temperature: temperature of sampled actions; below 1 favors likelier ones.
        context_steps: number of steps of history; 0 means as many as in training.
        when_full: what to do when the history is full: drop the oldest whole trial, or stop.
        action_space: action space of one environment; by default vectors (A,) within the bounds of the data, or its
            discrete actions. Pass the environment's if it is unbounded, integer, or of another shape or dtype.

    Settings that are not given default to those of the run's own evaluation.

    Returns:
        A policy with an empty history, seeded with 0.

    Raises:
        RingRLError: there is no usable checkpoint, a setting is invalid, or the action space differs from the one the
            agent was trained on.
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
