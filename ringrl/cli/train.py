"""`ringrl train`: an agent on a data set, evaluated as it learns; `resume=RUN` continues a run in its folder.

Of several processes each runs all of this and trains its part; process 0 alone writes, and speaks.
"""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ringrl.cli.acting import evaluate_policy, reference_of, scores_line, scores_of
from ringrl.cli.compose import as_plain, as_yaml
from ringrl.cli.console import output, progress_bar, progress_output
from ringrl.cli.continuing import (
    as_told,
    changes_in_all,
    command_to_go_on,
    goes_on_in_all,
    is_finished,
    show_changes,
    show_finished,
)
from ringrl.cli.devices import gathered, mesh_of, print_explanation, show_compiler_flags
from ringrl.cli.environments import environment_of, is_own_environment
from ringrl.cli.overrides import CONFIG_FILE
from ringrl.cli.preflight import check_acting, check_filming
from ringrl.cli.results import training_curves, write_results, write_video
from ringrl.cli.resuming import RecordedChange, plain_changes, write_changes
from ringrl.cli.run_folder import CHECKPOINTS, held_folder, remove_run
from ringrl.cli.watch import Watch
from ringrl.config import TrainCommand
from ringrl.data import (
    ChainSampler,
    EpisodeStore,
    default_target_return,
    fit_normalization,
    in_environment,
    open_dataset,
)
from ringrl.data.config import DataConfig
from ringrl.errors import Preempted, RingRLError
from ringrl.evaluation.figures import save_png
from ringrl.evaluation.policy import make_policy
from ringrl.evaluation.report import evaluation_figure
from ringrl.evaluation.rollout import Rollout
from ringrl.evaluation.scores import Reference
from ringrl.evaluation.summary import build_summary, write_atomically
from ringrl.parallel.multiprocess import (
    DistributedConfig,
    agree_on_text,
    first_process_first,
    is_main_process,
    join_processes,
    wait_for_process_0,
)
from ringrl.runs.acting import acting_config, trials_of
from ringrl.runs.agent import agent_of
from ringrl.runs.batches import make_batches
from ringrl.runs.record import REFERENCES, run_record
from ringrl.training.checkpoint import Checkpointer
from ringrl.training.checkpoint_folder import CheckpointFolder
from ringrl.training.interrupt import Interrupt
from ringrl.training.loop import train
from ringrl.training.metrics import TensorBoardLogger
from ringrl.training.run_history import RunHistory
from ringrl.training.state import create_state
from ringrl.types import Context, Normalization, Parameters

CHARTS = {  # in TensorBoard's tab of custom scalars
    "evaluation": {
        "return": ["evaluation/(first|last|mean|best)$"],
        "normalized return": ["evaluation/normalized_(first|last|mean|best)$"],
        "success": ["evaluation/success.*"],
    },
    "seconds a step": {"parts": ["time/(step|loader_wait|dispatch|device_wait|other)$"]},
}


def run(command: TrainCommand, folder: Path) -> None:
    """Train, evaluate and write everything into `folder`, which no other command may write into meanwhile."""
    join_processes(command.distributed)
    folder = Path(agree_on_text(str(folder)))
    with contextlib.nullcontext() if command.mesh.explain else held_folder(folder, "train"):
        try:
            _run(command, folder)
        except KeyboardInterrupt as interrupt:  # while nothing was to be saved, or by a second Ctrl-C
            steps = CheckpointFolder(folder / CHECKPOINTS).steps()
            if str(interrupt) or not steps:
                raise
            line = f"interrupted; saved last at step {steps[-1]}; `{command_to_go_on(folder)}` goes on."
            raise KeyboardInterrupt(line) from None


def _run(command: TrainCommand, folder: Path) -> None:
    console, main = output(), is_main_process()
    checkpointer = Checkpointer(folder / CHECKPOINTS, command.training.keep_last, warn=console.print)
    resuming = not command.mesh.explain and goes_on_in_all(command, folder)

    with first_process_first("data"), progress_bar("reading") as advance:
        store = open_dataset(command.data, progress=advance)
    check_alike(command, store.fingerprint)
    if resuming:  # another version might measure other scales than those that the agent learned with
        normalization = Normalization.from_json(checkpointer.load_metadata("last")["normalization"])
    else:
        normalization = fit_normalization(store, command.data.normalize_observations)
    spec = normalization.shown_spec(store.spec)
    sampler = ChainSampler(store, command.chain, normalization)
    mesh = mesh_of(command.mesh, command.attention)
    agent = agent_of(command, spec, mesh)
    if command.mesh.explain:
        return print_explanation(agent, command.training)
    if mesh is not None:
        show_compiler_flags(mesh, output(logged=False))  # which it logs itself
    # Contexts shorter than a chain are not spread: there is nothing to gain.
    acting_mesh = mesh if command.evaluation.sharded and command.chain.context is Context.chain else None
    actor = agent if acting_mesh is not None else agent_of(command, spec)
    acted_on = in_environment(store, command.env.id)  # of several sets, those of the environment that is acted in
    env = environment_of(command.env, acted_on.metadata, warn=console.print)
    if main or acting_mesh is not None:
        check_acting(env, store.spec, command.evaluation)  # what does not work shows before training, not after
    if main and command.evaluation.video:
        check_filming(env, command.evaluation, folder)

    target_return = default_target_return(acted_on)
    acting = acting_config(command.evaluation, command, store.spec, sampler.steps, target_return)
    trials = trials_of(command.evaluation, command)
    own = is_own_environment(env, acted_on.metadata)
    references = {name: acted_on.metadata.get(name) for name in REFERENCES} if own else {}
    metadata = run_record(as_plain(as_told(command)), sampler, env.record(), target_return, references)
    state, resumed, changes = create_state(agent, command.training, command.seed), None, []
    if resuming:
        changes = changes_in_all(command, metadata, checkpointer.load_metadata("last"), folder, "newest")
        state, resumed = checkpointer.restore("last", like=state)  # of a damaged one, the one before
        changes = changes_in_all(command, metadata, resumed, folder, "restored")
        if is_finished(command, resumed, changes, folder):
            return show_finished(folder, console)
        show_changes(command, resumed, changes, console)
    metadata["config_changes"] = plain_changes(changes)
    if main:
        if not resuming:
            remove_run(folder)
        write_changes(changes, folder)
        write_atomically(folder / CONFIG_FILE, as_yaml(as_told(command)))

    evaluations: dict[int, Rollout] = {}
    interrupt = Interrupt()

    reference = reference_of(references, command.evaluation.split)
    seen_returns = returns_range(command.data, acted_on)
    summarize = functools.partial(
        _summary,
        command,
        environment=env.spec.id,
        reference=reference,
        data_fingerprint=store.fingerprint,
        target_return=acting.target_return,
        changes=changes,
    )
    start = int(jax.device_get(state.step))
    with (
        _tensorboard(folder, resumed_at=start + 1 if resuming else None) as logger,
        RunHistory(folder, start) if main else contextlib.nullcontext() as history,
    ):

        def evaluate(parameters: Parameters, step: int) -> Mapping[str, float]:
            if acting_mesh is None:
                parameters = gathered(parameters)
                if not main:
                    wait_for_process_0(f"evaluation {step}")
                    return {}
            try:
                policy = make_policy(actor, parameters, normalization, acting)
                with progress_bar("trials") as advance:
                    check = Watch(interrupt, together=acting_mesh is not None)
                    found = evaluate_policy(policy, env, command.evaluation, trials, advance, check)
            finally:
                if acting_mesh is None:
                    wait_for_process_0(f"evaluation {step}")
            earlier = {before: np.nanmean(evaluations[before].trial_returns, axis=0) for before in sorted(evaluations)}
            evaluations[step] = found
            scores = scores_of(found, reference)
            console.print(f"evaluation at step {step}: {scores_line(found, scores)}")
            if logger is not None:
                figure = evaluation_figure(summarize(found), step=step, returns=seen_returns, earlier=earlier)
                logger.figure("trials", figure, step)
            return scores

        if logger is not None:
            logger.text("config", as_yaml(command))
            logger.layout(CHARTS)
        result = train(
            agent,
            state,
            make_batches(agent, sampler, command.training, seed=command.seed),
            command.training,
            checkpointer=checkpointer,
            logger=logger,
            history=history,
            evaluate=evaluate,
            metadata=metadata,
            resumed=resumed,
            profile=folder if command.profile and main else None,
            progress=main,
            console=progress_output(),
            interrupt=interrupt,
        )
        if result.interrupted:
            line = f"stopped and saved at step {result.steps}; `{command_to_go_on(folder)}` goes on."
            raise Preempted(line) if result.preempted else KeyboardInterrupt(line)

        whole = gathered(result.state.params) if command.evaluation.video else None
        if logger is None or history is None:
            return wait_for_process_0("results")
        found = evaluations[max(evaluations)]
        final_loss = history.losses.get(result.steps, result.final_loss)
        summary = summarize(found, train={**vars(result), "final_loss": final_loss})
        final = {f"final/{name}": value for name, value in scores_of(found, reference).items()}
        logger.hparams(as_plain(command), final, result.steps)
        save_png(
            training_curves(history.losses, history.evaluations, command.label or command.agent.name),
            folder / "curves.png",
        )
        write_results(summary, found, folder)
        if whole is not None:
            policy = make_policy(agent_of(command, spec), whole, normalization, acting)
            video = write_video(policy, env, command.evaluation, trials, folder)
            logger.video("trials", video.frames, result.steps, video.fps)
            console.print(f"video: {video.path}")
    console.print(f"run folder: {folder}")
    wait_for_process_0("results")


def returns_range(data: DataConfig, acted_on: EpisodeStore) -> tuple[float, float]:
    """The lowest and highest return in the data, the same for agents that keep another part of the best of it."""
    whole = dataclasses.replace(data, top_fraction=1.0)
    returns = acted_on.returns if whole == data else open_dataset(whole).returns
    return float(returns.min()), float(returns.max())


def _tensorboard(folder: Path, resumed_at: int | None) -> contextlib.AbstractContextManager[TensorBoardLogger | None]:
    return TensorBoardLogger(folder, resumed_at=resumed_at) if is_main_process() else contextlib.nullcontext()


def check_alike(command: TrainCommand, fingerprint: str) -> None:
    """Raises RingRLError in a process that was told, or found, something else than process 0."""
    alike = as_plain(dataclasses.replace(command, distributed=DistributedConfig()))
    digest = hashlib.sha256(f"{alike}{fingerprint}".encode()).hexdigest()
    if agree_on_text(digest) != digest:
        raise RingRLError(
            "This process was told or has something else than process 0: give all processes the same command and data "
            f"(here data_fingerprint={fingerprint})."
        )


def _summary(
    command: TrainCommand,
    found: Rollout,
    *,
    environment: str,
    reference: Reference | None,
    data_fingerprint: str,
    target_return: float,
    changes: Sequence[RecordedChange],
    train: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return build_summary(
        agent=command.agent.name,
        environment=environment,
        seed=command.seed,
        rollout=found,
        reference=reference,
        train=train,
        config=as_plain(as_told(command)),
        data_fingerprint=data_fingerprint,
        label=command.label or None,
        bootstrap_samples=command.evaluation.bootstrap_samples,
        extra={"target_return": target_return, "config_changes": plain_changes(changes)},
    )
