"""Evaluation of an agent in its environment, and its scores by name."""

from collections.abc import Callable, Mapping
from typing import Any

from ringrl.cli.environments import Environment, assign_tasks, vector_environment
from ringrl.config import EnvConfig
from ringrl.evaluation.config import EvaluationConfig, Split
from ringrl.evaluation.lockstep import synchronize_environments
from ringrl.evaluation.policy import HistoryPolicy
from ringrl.evaluation.rollout import Rollout, join_rollouts, rollout
from ringrl.evaluation.scores import SUMMARIES, Reference, Sample, score

SEED_STRIDE = 100_003  # between the seeds of repeated evaluations


def find_reference(metadata: Mapping[str, Any], split: Split) -> Reference | None:
    """The returns that count as 0 and 100: those of the split's tasks if the data set has them, else its own."""
    scores = metadata.get("reference_scores") or {}
    low = scores.get(f"{split}/random", metadata.get("ref_min_score"))
    high = scores.get(f"{split}/expert", metadata.get("ref_max_score"))
    if low is None or high is None:
        return None
    measured = {"random policy": f"{split}/random", "scripted controller at its best": f"{split}/expert"}
    names = [name if key in scores else "the data's reference" for name, key in measured.items()]
    return Reference(float(low), float(high), *names)


def evaluate_policy(
    policy: HistoryPolicy,
    env: Environment | EnvConfig,
    evaluation: EvaluationConfig,
    trials: int,
    on_progress: Callable[[int, int], None] | None = None,
    check: Callable[[], None] | None = None,
) -> Rollout:
    """Run and join all repeats of an evaluation; with a policy on a mesh, a collective of its processes.

    `check` is called before every step, and may raise to end it.
    """
    tasks = assign_tasks(env, evaluation.split, evaluation.environments)
    rows, total = evaluation.environments * trials, evaluation.repeats * evaluation.environments * trials
    parts = []
    with vector_environment(env, evaluation.environments) as environments:
        acted_in = environments if policy.agent.mesh is None else synchronize_environments(environments)
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


def collect_scores(found: Rollout, reference: Reference | None = None) -> dict[str, float]:
    """Scores of an evaluation by name, as in TensorBoard and checkpoints.

    First, last, mean and best return; `score`, the mean over all trials, which determines the best checkpoint; with a
    reference the four normalized (`normalized_last`); if the environment reports success, its rate over all trials, the
    first and the last.
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
    """Format the main scores of an evaluation, and its number of trials, in a line."""
    environments, trials = found.trial_returns.shape
    numbers = ", ".join(f"{name} {scores[name]:.4g}" for name in SUMMARIES)
    success = f", success {scores['success']:.0%}" if "success" in scores else ""
    return f"return of the first trial {numbers.removeprefix('first ')}{success} ({environments} x {trials} trials)"
