"""Evaluation during a training run: the current agent acts, and its trials are scored, shown and stored."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ringrl.cli.acting import collect_scores, evaluate_policy, scores_line
from ringrl.cli.console import output, progress_bar
from ringrl.cli.devices import gather_parameters
from ringrl.cli.session import Session
from ringrl.cli.watch import InterruptCheck
from ringrl.data import EpisodeStore, open_dataset
from ringrl.data.config import DataConfig
from ringrl.evaluation.policy import make_policy
from ringrl.evaluation.report import evaluation_figure
from ringrl.evaluation.rollout import Rollout
from ringrl.parallel.multiprocess import is_main_process, wait_for_process_0
from ringrl.runs.agent import make_run_agent
from ringrl.training.interrupt import Interrupt
from ringrl.training.metrics import TensorBoardLogger
from ringrl.types import Parameters


class Evaluator:
    """Evaluates the parameters at a step; every process of a run calls it at the same steps.

    On an acting mesh all processes act together. Otherwise process 0 acts on one device and the others wait for it.

    Args:
        session: the run's agent, environment and settings of acting.
        interrupt: handler of the signals that end an evaluation early.
        logger: receives a figure of each evaluation; None in processes other than 0.

    Attributes:
        found: the trials of each evaluation, by step.
    """

    def __init__(self, session: Session, interrupt: Interrupt, logger: TensorBoardLogger | None) -> None:
        self._session, self._interrupt, self._logger = session, interrupt, logger
        self._together = session.acting_mesh is not None
        self._actor = session.agent if self._together else make_run_agent(session.command, session.sampler.spec)
        self._returns = returns_range(session.command.data, session.acted_on)
        self.found: dict[int, Rollout] = {}

    def __call__(self, parameters: Parameters, step: int) -> Mapping[str, float]:
        """The scores of an evaluation, by name; empty in a process that only waits.

        Raises:
            Interrupted: a signal arrived during the evaluation.
            RingRLError: the environment failed.
        """
        if self._together:
            found = self._act(parameters)
        else:
            whole = gather_parameters(parameters)
            try:
                found = self._act(whole) if is_main_process() else None
            finally:
                wait_for_process_0(f"evaluation {step}")
            if found is None:
                return {}
        earlier = {before: np.nanmean(trials.trial_returns, axis=0) for before, trials in sorted(self.found.items())}
        self.found[step] = found
        scores = collect_scores(found, self._session.reference)
        output().print(f"evaluation at step {step}: {scores_line(found, scores)}")
        if self._logger is not None:
            summary = self._session.summarize(found)
            figure = evaluation_figure(summary, step=step, returns=self._returns, earlier=earlier)
            self._logger.figure("trials", figure, step)
        return scores

    def _act(self, parameters: Parameters) -> Rollout:
        session, check = self._session, InterruptCheck(self._interrupt, together=self._together)
        policy = make_policy(self._actor, parameters, session.sampler.normalization, session.acting)
        with progress_bar("trials") as advance:
            return evaluate_policy(policy, session.env, session.command.evaluation, session.trials, advance, check)


def returns_range(data: DataConfig, acted_on: EpisodeStore) -> tuple[float, float]:
    """The lowest and highest return in the data, independent of the fraction of best episodes that an agent keeps."""
    whole = dataclasses.replace(data, top_fraction=1.0)
    returns = acted_on.returns if whole == data else open_dataset(whole).returns
    return float(returns.min()), float(returns.max())
