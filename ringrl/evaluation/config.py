"""Configuration of evaluations."""

import dataclasses
import enum

from ringrl.errors import RingRLError, check_least, parse_choice


class Split(enum.StrEnum):
    """Which tasks of an environment to use."""

    training = "training"
    held_out = "held_out"
    all = "all"


class WhenFull(enum.StrEnum):
    """What to do when the context is full: drop the oldest whole trajectory, or end the evaluation there."""

    drop = "drop"
    stop = "stop"


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Configuration of rollouts and their scores."""

    trials: int = 0  # episodes in one context; 0 means as many as trajectories in a chain, at least 8
    environments: int = 16  # run in parallel, assigned to the tasks in turn
    repeats: int = 1  # whole evaluations, with different seeds
    split: Split = Split.held_out  # whose tasks are used; an environment without a split has its one task in both
    sample: bool = True  # sample actions, else take the mode
    temperature: float = 1.0  # of sampled actions; below 1 favors likelier ones
    target_return: float | None = None  # None: mean over training tasks of the best return in the data
    when_full: WhenFull = WhenFull.drop
    context_steps: int = 0  # steps of history kept; 0 means as many as in training
    sharded: bool = False  # shard the context over all devices of the mesh (chain.context=chain only), else use one
    seed: int = 10_000  # of the environments and of sampled actions
    video: bool = False  # record a video of the trials of one environment at the end
    bootstrap_samples: int = 2000  # resamples behind a 95 % interval; 0 leaves intervals out

    def __post_init__(self) -> None:
        for name, choices in (("split", Split), ("when_full", WhenFull)):
            object.__setattr__(self, name, parse_choice(f"evaluation.{name}", getattr(self, name), choices))
        check_least("evaluation", self, {"trials": 0, "environments": 1, "repeats": 1, "context_steps": 0})
        check_redraws("evaluation.bootstrap_samples", self.bootstrap_samples)
        if not self.temperature > 0:
            raise RingRLError(
                f"evaluation.temperature={self.temperature} must be positive; sample=false takes the mode."
            )


@dataclasses.dataclass(frozen=True)
class EvaluationChoice:
    """Evaluation settings of a trained agent: null is the run's own value; devices and video are not inherited."""

    trials: int | None = None  # episodes in one context
    environments: int | None = None  # run in parallel, assigned to the tasks in turn
    repeats: int | None = None  # whole evaluations, with different seeds
    split: Split | None = None  # whose tasks are used
    sample: bool | None = None  # sample actions, else take the mode
    temperature: float | None = None  # of sampled actions; below 1 favors likelier ones
    target_return: float | None = None  # the return that the agent is conditioned on
    when_full: WhenFull | None = None
    context_steps: int | None = None  # steps of history kept; 0 means as many as in training
    sharded: bool = False  # shard the context over all devices of the mesh (chain.context=chain only), else use one
    seed: int | None = None  # of the environments and of sampled actions
    video: bool = False  # record a video of the trials of one environment
    bootstrap_samples: int | None = None  # resamples behind a 95 % interval; 0 leaves intervals out

    def __post_init__(self) -> None:
        self.of_run(EvaluationConfig())  # validates the values immediately

    def of_run(self, run: EvaluationConfig) -> EvaluationConfig:
        """The evaluation of a run, with the values that are set here in place of its own."""
        chosen = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(run, **{name: value for name, value in chosen.items() if value is not None})


FEWEST_REDRAWS = 40  # with this many resamples the 2.5 % quantile lies within them


def check_redraws(key: str, samples: int) -> None:
    """Raise RingRLError for a bootstrap with too few resamples for a 2.5 % quantile."""
    if samples != 0 and samples < FEWEST_REDRAWS:
        raise RingRLError(f"{key}={samples}: a 95 % interval needs {FEWEST_REDRAWS} or more; 0 leaves intervals out.")
