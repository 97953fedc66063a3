"""`ringrl train`: train an agent on a data set and evaluate it; `resume=RUN` continues a run in its folder.

With several processes each runs this module and trains on its shards; only process 0 writes and prints.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ringrl.cli.acting import collect_scores
from ringrl.cli.compose import as_plain, format_yaml
from ringrl.cli.console import output, progress_output
from ringrl.cli.continuing import format_resume_command
from ringrl.cli.devices import gather_parameters
from ringrl.cli.evaluator import Evaluator
from ringrl.cli.results import training_curves, write_results, write_video
from ringrl.cli.run_folder import CHECKPOINTS, hold_folder
from ringrl.cli.session import Session, explain_mesh, prepare
from ringrl.config import TrainCommand
from ringrl.errors import Preempted
from ringrl.evaluation.figures import save_png
from ringrl.evaluation.policy import make_policy
from ringrl.parallel.multiprocess import agree_on_text, is_main_process, join_processes, wait_for_process_0
from ringrl.runs.agent import make_run_agent
from ringrl.runs.batches import make_batches
from ringrl.training.checkpoint_folder import CheckpointFolder
from ringrl.training.interrupt import Interrupt
from ringrl.training.loop import train
from ringrl.training.metrics import TensorBoardLogger
from ringrl.training.result import TrainResult
from ringrl.training.run_history import RunHistory

CHARTS = {  # in TensorBoard's tab of custom scalars
    "evaluation": {
        "return": ["evaluation/(first|last|mean|best)$"],
        "normalized return": ["evaluation/normalized_(first|last|mean|best)$"],
        "success": ["evaluation/success.*"],
    },
    "seconds a step": {"parts": ["time/(step|loader_wait|dispatch|device_wait|other)$"]},
}


def run(command: TrainCommand, folder: Path) -> None:
    """Train, evaluate and write everything into `folder`, which no other command may write to in the meantime."""
    join_processes(command.distributed)
    if command.mesh.explain:
        return explain_mesh(command)
    folder = Path(agree_on_text(str(folder)))
    with hold_folder(folder, "train"), report_interruptions(folder):
        session = prepare(command, folder)
        if session is None:
            return
        interrupt = Interrupt()
        with records(session) as (logger, history):
            evaluator = Evaluator(session, interrupt, logger)
            result = train(
                session.agent,
                session.state,
                make_batches(session.agent, session.sampler, command.training, seed=command.seed),
                command.training,
                checkpointer=session.checkpointer,
                logger=logger,
                history=history,
                evaluate=evaluator,
                metadata=session.metadata,
                resumed=session.resumed,
                profile=folder if command.profile and is_main_process() else None,
                progress=is_main_process(),
                console=progress_output(),
                interrupt=interrupt,
                programs=session.programs,
            )
            if result.interrupted:
                line = f"stopped and saved at step {result.steps}; `{format_resume_command(folder)}` goes on."
                raise Preempted(line) if result.preempted else KeyboardInterrupt(line)
            write_outcome(session, result, evaluator, logger, history)
        output().print(f"run folder: {folder}")
        wait_for_process_0("results")


@contextlib.contextmanager
def report_interruptions(folder: Path) -> Iterator[None]:
    """Context that reports the state of the run on a Ctrl-C that comes second, or while there is nothing to save."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        steps = CheckpointFolder(folder / CHECKPOINTS).steps()
        if str(interrupt) or not steps:
            raise
        line = f"interrupted; saved last at step {steps[-1]}; `{format_resume_command(folder)}` goes on."
        raise KeyboardInterrupt(line) from None


@contextlib.contextmanager
def records(session: Session) -> Iterator[tuple[TensorBoardLogger | None, RunHistory | None]]:
    """Context of TensorBoard's events and the history of losses, both open; None in processes other than 0."""
    if not is_main_process():
        yield None, None
        return
    start = 0 if session.resumed is None else int(session.resumed["step"])
    resumed_at = None if session.resumed is None else start + 1
    with (
        TensorBoardLogger(session.folder, resumed_at=resumed_at) as logger,
        RunHistory(session.folder, start) as history,
    ):
        logger.text("config", format_yaml(session.command))
        logger.layout(CHARTS)
        yield logger, history


def write_outcome(
    session: Session,
    result: TrainResult,
    evaluator: Evaluator,
    logger: TensorBoardLogger | None,
    history: RunHistory | None,
) -> None:
    """Write the results of a finished run: its last evaluation, curves, and a video on request; a collective."""
    command, folder = session.command, session.folder
    whole = gather_parameters(result.state.params) if command.evaluation.video else None
    if logger is None or history is None:
        return
    found = evaluator.found[max(evaluator.found)]
    final_loss = history.losses.get(result.steps, result.final_loss)
    final = {f"final/{name}": value for name, value in collect_scores(found, session.reference).items()}
    logger.hparams(as_plain(command), final, result.steps)
    title = command.label or command.agent.name
    save_png(training_curves(history.losses, history.evaluations, title), folder / "curves.png")
    write_results(session.summarize(found, train={**vars(result), "final_loss": final_loss}), found, folder)
    if whole is not None:
        actor = make_run_agent(command, session.sampler.spec)
        policy = make_policy(actor, whole, session.sampler.normalization, session.acting)
        video = write_video(policy, session.env, command.evaluation, session.trials, folder)
        logger.video("trials", video.frames, result.steps, video.fps)
        output().print(f"video: {video.path}")
