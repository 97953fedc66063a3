"""A trained agent from its checkpoint alone, and its trials in an environment."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ringrl.agents import SequenceAgent, make_agent
from ringrl.cli.environments import Environment, dealt_tasks, vector_environment
from ringrl.config import EnvConfig, TrainCommand
from ringrl.config.schema import build
from ringrl.data.store import spec_from_json
from ringrl.errors import RingRLError
from ringrl.evaluation.config import EvaluationConfig, Split, WhenFull
from ringrl.evaluation.lockstep import in_lockstep
from ringrl.evaluation.policy import ActingConfig, HistoryPolicy
from ringrl.evaluation.rollout import Rollout, join_rollouts, rollout
from ringrl.evaluation.scores import SUMMARIES, Reference, Sample, score
from ringrl.ops import Strategy
from ringrl.parallel.sharding import parameter_shardings
from ringrl.training.checkpoint import Which, restore_parameters
from ringrl.types import Context, DataSpec, Normalization, Parameters

FEWEST_TRIALS = 8
SEED_STRIDE = 100_003  # between the seeds of repeated evaluations


@dataclasses.dataclass(frozen=True)
class LoadedAgent:
    """An agent ready to act, with what its run knew."""

    command: TrainCommand
    agent: SequenceAgent
    parameters: Parameters
    normalization: Normalization
    environment: EnvConfig  # as one would name it; the metadata have its whole record
    chain_steps: int  # P in training
    target_return: float
    metadata: dict[str, Any]  # of the checkpoint


def agent_of(command: TrainCommand, spec: DataSpec, mesh: jax.sharding.Mesh | None = None) -> SequenceAgent:
    """The agent that a training command describes, for data of these sizes.

    Without a mesh it acts on one device: a strategy that spreads the sequence has the values of blockwise.
    """
    attention = command.attention
    if attention.strategy.is_sharded and mesh is None:
        attention = dataclasses.replace(attention, strategy=Strategy.blockwise)
    return make_agent(
        command.agent,
        command.model,
        attention,
        spec,
        context=command.chain.context,
        compute_dtype=jnp.dtype(command.training.precision.value),
        mesh=mesh,
    )


def load_agent(
    checkpoint: str | Path,
    which: Which = "last",
    warn: Callable[[str], None] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> LoadedAgent:
    """Rebuild an agent from a run folder or checkpoint; raises RingRLError where there is none that can be used.

    With a mesh, whatever the run had, the agent acts on all its devices, over which its parameters are split. One that
    looks at less than a chain ignores it: its contexts are short.
    """
    parameters, metadata = restore_parameters(checkpoint, which, warn)
    try:
        command = build(TrainCommand, metadata["config"])
        normalization = Normalization.from_json(metadata["normalization"])
        mesh = mesh if command.chain.context is Context.chain else None
        agent = agent_of(command, normalization.shown_spec(spec_from_json(metadata["spec"])), mesh)
        return LoadedAgent(
            command,
            agent,
            jax.device_put(parameters) if mesh is None else _spread(parameters, mesh),
            normalization,
            build(EnvConfig, metadata["environment"]),
            metadata["chain_steps"],
            metadata["target_return"],
            metadata,
        )
    except (KeyError, TypeError) as error:
        raise RingRLError(
            f"{checkpoint}: its metadata lack {error}: it is not a checkpoint of `ringrl train`."
        ) from error


def _spread(parameters: Parameters, mesh: jax.sharding.Mesh) -> Parameters:
    """Numpy arrays in their shardings over a mesh, of which every device gets its part alone."""

    def put(leaf: np.ndarray, sharding: jax.sharding.NamedSharding) -> jax.Array:
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, parameters, parameter_shardings(parameters, mesh))


def reference_of(metadata: Mapping[str, Any], split: Split) -> Reference | None:
    """The returns that count as 0 and 100: those of the split's tasks where the data set tells them, else its own."""
    scores = metadata.get("reference_scores") or {}
    low = scores.get(f"{split}/random", metadata.get("ref_min_score"))
    high = scores.get(f"{split}/expert", metadata.get("ref_max_score"))
    if low is None or high is None:
        return None
    measured = {"random policy": f"{split}/random", "scripted controller at its best": f"{split}/expert"}
    names = [name if key in scores else "the data's reference" for name, key in measured.items()]
    return Reference(float(low), float(high), *names)


def acting_config(
    evaluation: EvaluationConfig, command: TrainCommand, spec: DataSpec, chain_steps: int, target_return: float
) -> ActingConfig:
    """How the agent of `command` acts in an evaluation: as much history as it learnt with, unless told otherwise."""
    learnt = {
        Context.chain: chain_steps,
        Context.trial: command.chain.window_steps or spec.max_episode_steps,
        Context.step: 1,
    }
    context = command.chain.context
    capacity = evaluation.context_steps or learnt[context]
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


def trials_of(evaluation: EvaluationConfig, command: TrainCommand) -> int:
    """How many trials an evaluation runs: as many as a chain had trajectories, at least 8, unless told otherwise.

    An agent of one trajectory gets as many trials as the others, or their best-of-n would not compare.
    """
    return evaluation.trials or max(command.chain.trajectories, FEWEST_TRIALS)


def evaluate_policy(
    policy: HistoryPolicy,
    env: Environment | EnvConfig,
    evaluation: EvaluationConfig,
    trials: int,
    on_progress: Callable[[int, int], None] | None = None,
    check: Callable[[], None] | None = None,
) -> Rollout:
    """Every repeat of an evaluation, joined; of a policy on a mesh, every process of it calls this.

    `check` is called before every step, and may raise to end it.
    """
    tasks = dealt_tasks(env, evaluation.split, evaluation.environments)
    rows, total = evaluation.environments * trials, evaluation.repeats * evaluation.environments * trials
    parts = []
    with vector_environment(env, evaluation.environments) as environments:
        acted_in = environments if policy.agent.mesh is None else in_lockstep(environments)
        for repeat in range(evaluation.repeats):

            def advance(done: int, _: int, before: int = repeat * rows) -> None:
                if on_progress is not None:
                    on_progress(before + done, total)

            parts.append(
                rollout(
                    acted_in,
                    policy,
                    trials=trials,
                    task_ids=tasks,
                    seed=evaluation.seed + SEED_STRIDE * repeat,
                    on_progress=advance,
                    check=check,
                )
            )
    return join_rollouts(parts)


def scores_of(found: Rollout, reference: Reference | None = None) -> dict[str, float]:
    """Numbers of an evaluation by name, as TensorBoard and checkpoints have them.

    First, last, mean and best return; `score`, the mean over all trials, which decides the best checkpoint; with a
    reference the four normalised (`normalized_last`); where the environment tells of success, its share of all trials,
    of the first and of the last.
    """
    scores = score(found, bootstrap_samples=0)
    values = {name: getattr(scores, name).value for name in SUMMARIES}
    values["score"] = values["mean"]
    if reference is not None:
        values |= {f"normalized_{name}": float(reference.normalize(values[name])) for name in SUMMARIES}
    if found.trial_success is not None:
        told = score(Sample(found.trial_success, found.task_ids), bootstrap_samples=0)
        values |= {"success": told.mean.value, "success_first": told.first.value, "success_last": told.last.value}
    return values


def scores_line(found: Rollout, scores: Mapping[str, float]) -> str:
    """The main numbers of an evaluation, and how many trials are behind them, in a line."""
    environments, trials = found.trial_returns.shape
    numbers = ", ".join(f"{name} {scores[name]:.4g}" for name in SUMMARIES)
    success = f", success {scores['success']:.0%}" if "success" in scores else ""
    return f"return of the first trial {numbers.removeprefix('first ')}{success} ({environments} x {trials} trials)"
