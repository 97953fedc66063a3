"""Policies that collect data: noise, scripted controllers, actors of a learner, trained agents."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import ringrl_envs
from gymnasium.vector import VectorEnv

from ringrl.config import BehaviorKind, CollectCommand
from ringrl.errors import RingRLError
from ringrl.evaluation.actions import convert_actions
from ringrl.evaluation.config import EvaluationConfig
from ringrl.evaluation.policy import RecomputingPolicy
from ringrl.evaluation.rollout import check_vector_env
from ringrl.online import ActorBehavior
from ringrl.runs.acting import acting_config
from ringrl.runs.agent import load_agent
from ringrl.types import Context

ACTOR_FILES = "actor_*.npz"
Weighted = tuple[str, float, ringrl_envs.Behaviour]


def make_behaviors(command: CollectCommand, environments: VectorEnv) -> list[Weighted]:
    """(name, weight, behavior) of each policy in the mix."""
    found: list[Weighted] = []
    for name, behavior in command.behavior.items():
        if behavior.weight == 0:
            continue
        if behavior.kind is BehaviorKind.checkpoint:
            found.extend(_of_checkpoint(name, behavior.weight, behavior.checkpoint, environments, command.seed))
        else:
            acting = ringrl_envs.make_controller(
                command.env.id, environments, kind=behavior.kind.value, quality=behavior.quality
            )
            found.append((name, behavior.weight, acting))
    return found


def _of_checkpoint(name: str, weight: float, checkpoint: str, environments: VectorEnv, seed: int) -> Iterator[Weighted]:
    """A trained agent; or a learner's actor, or all actors of a folder with equal shares."""
    path = Path(checkpoint)
    actors = [path] if path.suffix == ".npz" else sorted([*path.glob(ACTOR_FILES), *path.glob(f"actors/{ACTOR_FILES}")])
    steps = [path.name, *(folder.name for where in (path, path / "checkpoints") for folder in where.glob("step_*"))]
    if not actors and not any(step.startswith("step_") for step in steps):
        raise RingRLError(
            f"behavior.{name}.checkpoint={checkpoint}: neither actors ({ACTOR_FILES}) nor checkpoints are there: give "
            "the run folder of a `ringrl collect behavior=sac`, or of a `ringrl train`."
        )
    if not actors:
        yield name, weight, CheckpointBehavior(checkpoint, environments, seed)
    for actor in actors:
        yield (
            f"{name}/{actor.stem}" if len(actors) > 1 else name,
            weight / len(actors),
            ActorBehavior(actor, environments),
        )


class CheckpointBehavior:
    """Acts with an agent from a run folder; every episode begins with an empty history.

    Successive episodes of one environment have different tasks, so no history is carried over.
    """

    def __init__(self, checkpoint: str, environments: VectorEnv, seed: int) -> None:
        loaded = load_agent(checkpoint)
        check_vector_env(environments, loaded.agent.spec)
        # A chain's history never grows beyond one episode here; a shorter window keeps its trained length.
        one_episode = loaded.agent.spec.max_episode_steps if loaded.agent.context is Context.chain else 0
        config = acting_config(
            EvaluationConfig(context_steps=one_episode),
            loaded.command,
            loaded.agent.spec,
            loaded.chain_steps,
            loaded.target_return,
        )
        self._policy = RecomputingPolicy(loaded.agent, loaded.parameters, loaded.normalization, config)
        self._policy.reset(environments.num_envs, seed)
        self._space = environments.single_action_space
        self._owned = np.zeros(environments.num_envs, bool)  # where one of its own episodes is running

    def reset(self, mask: np.ndarray, rng: np.random.Generator) -> None:
        """Begin new episodes where `mask` (B,) is True."""
        self._policy.history.clear(mask)
        self._owned |= mask

    def act(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Actions of the environment, (B, ...), for raw observations (B, O)."""
        return convert_actions(self._space, self._policy.act(observations, self._owned), self._owned)

    def observe(self, rewards: np.ndarray, finished: np.ndarray, mask: np.ndarray) -> None:
        """Record the outcome of its own actions, where `mask` is True."""
        if mask.any():
            self._policy.observe(rewards, finished, mask)
        self._owned &= ~finished
