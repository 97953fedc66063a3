"""The training loop, from batches to parameters, logs and checkpoints."""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from ringrl.errors import Interrupted, RingRLError
from ringrl.training.agreement import FlagSynchronizer, agree_each
from ringrl.training.checkpoint import Checkpointer
from ringrl.training.compilation import check_layout, compile_train_step
from ringrl.training.config import TrainingConfig
from ringrl.training.device import total_peak_flops
from ringrl.training.heartbeat import Heartbeat
from ringrl.training.interrupt import Interrupt
from ringrl.training.periodic_events import Evaluate, PeriodicEvents
from ringrl.training.profile import profile_window
from ringrl.training.programs import Programs
from ringrl.training.progress import TrainingProgress
from ringrl.training.recorder import History, Logger, Recorder
from ringrl.training.result import TrainResult
from ringrl.training.state import Agent, TrainState
from ringrl.types import Chain

_logger = logging.getLogger(__name__)

MakeBatches = Callable[[int], Iterator[Chain]]


def train(
    agent: Agent,
    state: TrainState,
    make_batches: MakeBatches,
    training: TrainingConfig,
    *,
    checkpointer: Checkpointer | None = None,
    logger: Logger | None = None,
    history: History | None = None,
    evaluate: Evaluate | None = None,
    metadata: Mapping[str, Any] | None = None,
    resumed: Mapping[str, Any] | None = None,
    profile: Path | None = None,
    progress: bool = True,
    console: Console | None = None,
    interrupt: Interrupt | None = None,
    programs: Programs | None = None,
) -> TrainResult:
    """Train from `state` until `training.steps` batches are consumed.

    A restored state continues with exactly the batches, dropout and losses of an uninterrupted run. A checkpoint is
    written every `save_every` steps, after `save_every_minutes`, at a new best, at the end, on a signal
    (`ringrl.training.interrupt`), and if `evaluate` fails; the next steps run while it is written, and on return it is
    complete. The last one is complete before the final evaluation begins, whose scores are added to it.

    With several processes, all call it alike. They stop and save at the same step, even if a signal reaches only one of
    them: they synchronize (`FlagSynchronizer`) regularly and before each evaluation or save, by process 0's clock.

    Args:
        agent: the agent whose loss is minimized.
        state: the initial state, such as `create_state(agent, training)`. It is donated: use the result's state.
        make_batches: given `start`, yields batches start, start + 1, ... of the run's stream; see `make_batches`.
        training: number of steps, batch size, and intervals of logging, evaluating and saving.
        checkpointer: saves the checkpoints; by default nothing is saved.
        logger: receives metrics, such as TensorBoard; flushed before each checkpoint, as `history` is.
        history: receives every loss.
        evaluate: called with parameters and step every `evaluate_every` steps, and always at the end (not after a
            signal); its "score", higher is better, decides the best checkpoint.
        metadata: plain JSON for each checkpoint, besides data_position, tokens, seconds and evaluation; `describe_run`
            makes what `load_policy` reads.
        resumed: the metadata of the checkpoint from which `state` was restored.
        profile: a folder for a trace of a few steps (`ringrl.training.profile`), of process 0 alone.
        progress: whether to show a progress bar.
        console: console of the progress bar; by default standard error.
        interrupt: handles signals while there is something to save, so not during compilation or the final evaluation.
            An evaluation may check its `requested` and raise `Interrupted`: the evaluation then counts as not begun,
            and is repeated when the run is resumed.
        programs: cache of the compiled step for later starts, if any.

    Returns:
        The last state, totals over the whole run, and this call's losses by step.

    Raises:
        RingRLError: a step does not fit in memory or stays non-finite, batches run out, the first batch does not have
            the layout of the agent's ring, or a checkpoint cannot be written.
        KeyboardInterrupt: on a second Ctrl-C.
    """
    start = step = int(jax.device_get(state.step))
    tokens_before, seconds_before = (dict(resumed or {}).get(name, 0) for name in ("tokens", "seconds"))
    interrupt = Interrupt() if interrupt is None else interrupt

    with (
        PeriodicEvents(
            checkpointer, evaluate, (logger, history), metadata or {}, training.save_every_minutes
        ) as events,
        TrainingProgress(training.steps, step, enabled=progress, console=console) as bar,
        profile_window(profile, step, training.steps) as window,
    ):
        interrupted = preempted = False
        tokens, flops, batches, train_step = 0, 0.0, iter(()), None
        if step < training.steps:
            batches = make_batches(step)
            batch = _next(batches, step, training)
            check_layout(agent, batch)
            chains, chain_steps = batch.loss_mask.shape
            tokens, flops = chains * chain_steps * agent.tokens_per_step, agent.train_flops(chains, chain_steps)
            batches = itertools.chain([batch], batches)
            began = time.perf_counter()
            with Heartbeat("compiling the training step", say=bar.say):
                train_step = compile_train_step(agent, training, state, batch, programs)
            seconds = time.perf_counter() - began
            _logger.info("training step on %d x %d steps ready in %.1f s", chains, chain_steps, seconds)
        recorder = Recorder(
            training,
            bar,
            logger,
            history,
            tokens=tokens,
            flops=flops,
            peak_flops=total_peak_flops(state.step.devices()),
        )

        def totals() -> dict[str, Any]:
            return {
                "tokens": tokens_before + (step - start) * tokens,
                "seconds": seconds_before + recorder.seconds,
            }

        def evaluate_now() -> bool:
            with recorder.pause():
                try:
                    return events.evaluate(state, step)
                except Interrupted:
                    raise
                except Exception:  # an error of the environment, for example, must not lose the training progress
                    if step > start:
                        events.save(state, step, **totals())
                    raise

        synchronizer = FlagSynchronizer(step)
        with interrupt:
            # A signal arrived between this step's update and its evaluation.
            evaluate_due = resumed is not None and _due(step, training.evaluate_every) and not resumed.get("evaluation")
            try:
                if evaluate_due and step < training.steps and evaluate_now():
                    events.add_evaluation(step)
                while train_step is not None and step < training.steps and not interrupted:
                    if window.due(step):
                        recorder.flush()
                        with recorder.pause():
                            window.at(step)
                    with recorder.waiting():
                        batch = _next(batches, step, training)
                    with recorder.dispatching():
                        state, metrics = train_step(state, batch)
                    step += 1
                    recorder.add(step, metrics)
                    if logger is not None and step < training.steps and _due(step, training.histogram_every):
                        logger.histograms(state.params, step, prefix="parameters")
                    evaluate_due, save_due = _due(step, training.evaluate_every), _due(step, training.save_every)
                    if not (evaluate_due or save_due or step == training.steps or synchronizer.due(step)):
                        continue
                    interrupted, preempted, clock_due = synchronizer.synchronize(
                        step, interrupt.requested, interrupt.preempted, events.save_due_by_clock()
                    )
                    if interrupted or step == training.steps:
                        break
                    new_best = False
                    if evaluate_due:
                        recorder.flush()
                        new_best = evaluate_now()
                    if new_best or save_due or clock_due:
                        recorder.flush()
                        with recorder.pause():
                            events.save(state, step, **totals())
            except Interrupted:
                interrupted, preempted = agree_each(True, interrupt.preempted)

            recorder.flush()
            finished = totals()
            if step > start or resumed is None:
                events.save(state, step, **finished)
            events.wait()
            if not interrupted:  # a signal may have arrived while the last checkpoint was written
                interrupted, preempted = agree_each(interrupt.requested, interrupt.preempted)
        if not interrupted:
            evaluate_now()
            events.add_evaluation(step)

    final_loss = recorder.losses[-1][1] if recorder.losses else None
    return TrainResult(
        state,
        step,
        **finished,
        final_loss=final_loss,
        losses=recorder.losses,
        evaluation=events.evaluation,
        interrupted=interrupted,
        preempted=preempted,
    )


def _next(batches: Iterator[Chain], step: int, training: TrainingConfig) -> Chain:
    try:
        return next(batches)
    except StopIteration:
        raise RingRLError(f"Batches ran out at step {step} of training.steps={training.steps}.") from None


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
