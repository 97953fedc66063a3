"""`ringrl train`: an agent on a data set, evaluated as it learns; `resume=RUN` continues a run in its folder.

Of several processes each runs all of this and trains its part; process 0 alone writes, and speaks.
"""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ringrl.cli.acting import acting_config, agent_of, evaluate_policy, reference_of, scores_of, trials_of
from ringrl.cli.compose import as_plain, as_yaml
from ringrl.cli.console import output, progress_bar
from ringrl.cli.devices import gathered, mesh_of, print_explanation, show_compiler_flags
from ringrl.cli.environments import environment_of, is_own_environment, vector_environment
from ringrl.cli.overrides import AUTO, CONFIG_FILE
from ringrl.cli.results import training_curves, write_results, write_video
from ringrl.cli.schema import build
from ringrl.config import TrainCommand
from ringrl.data import (
    ChainSampler,
    default_target_return,
    fit_normalization,
    in_environment,
    make_loader,
    open_dataset,
)
from ringrl.data.store import spec_to_json
from ringrl.errors import Preempted, RingRLError
from ringrl.evaluation.figures import save_png
from ringrl.evaluation.policy import make_policy
from ringrl.evaluation.report import runs_figure
from ringrl.evaluation.rollout import Rollout, check_vector_env
from ringrl.evaluation.scores import Reference
from ringrl.evaluation.summary import build_summary, write_atomically
from ringrl.ops import step_order
from ringrl.parallel.batches import BatchParts
from ringrl.parallel.multiprocess import (
    DistributedConfig,
    agree_on_text,
    first_process_first,
    is_main_process,
    join_processes,
    wait_for_process_0,
)
from ringrl.training.checkpoint import Checkpointer
from ringrl.training.compatibility import check_compatible
from ringrl.training.loop import TrainResult, train
from ringrl.training.metrics import TensorBoardLogger
from ringrl.training.state import create_state
from ringrl.types import Chain, Context, Parameters

KEPT = ("ref_min_score", "ref_max_score", "reference_scores")  # of the data set's metadata, in every checkpoint


def run(command: TrainCommand, folder: Path) -> None:
    """Train, evaluate and write everything into `folder`."""
    join_processes(command.distributed)
    folder = Path(agree_on_text(str(folder)))
    console, main = output(), is_main_process()
    checkpointer = Checkpointer(folder / "checkpoints", command.training.keep_last, warn=console.print)
    has_checkpoint = agree_on_text("yes" if checkpointer.steps() else "no") == "yes"
    resuming = command.resume is not None and (command.resume != AUTO or has_checkpoint)

    with first_process_first("data"), progress_bar("reading") as advance:
        store = open_dataset(command.data, progress=advance)
    check_alike(command, store.fingerprint)
    normalization = fit_normalization(store, command.data.normalize_observations)
    sampler = ChainSampler(store, command.chain, normalization)
    mesh = mesh_of(command.mesh, command.attention)
    agent = agent_of(command, store.spec, mesh)
    if command.mesh.explain:
        return print_explanation(agent, command.training)
    if mesh is not None:
        show_compiler_flags(mesh, console)
    # Contexts shorter than a chain are not spread: there is nothing to gain.
    acting_mesh = mesh if command.evaluation.sharded and command.chain.context is Context.chain else None
    actor = agent if acting_mesh is not None else agent_of(command, store.spec)
    env = environment_of(command.env, store.metadata)
    if main or acting_mesh is not None:
        with vector_environment(env, 1) as environments:  # what does not fit shows before training, not after
            check_vector_env(environments, store.spec)

    acted_on = in_environment(store, env.id)  # of several sets, those of the environment that is acted in
    target_return = default_target_return(acted_on)
    own = is_own_environment(env, acted_on.metadata)
    references = {name: acted_on.metadata.get(name) for name in KEPT} if own else {}
    metadata = {
        "config": as_plain(command),
        "spec": spec_to_json(store.spec),
        "normalization": normalization.to_json(),
        "environment": as_plain(env),
        "chain_steps": sampler.steps,
        "target_return": target_return,
        "data_fingerprint": store.fingerprint,
        **references,
    }
    state, resumed = create_state(agent, command.training, command.seed), None
    if resuming:
        check_compatible(with_defaults(checkpointer.load_metadata("last")), must_agree(metadata))
        state, resumed = checkpointer.restore("last", like=state)
    if main:
        write_atomically(folder / CONFIG_FILE, as_yaml(dataclasses.replace(command, resume=None)))

    acting = acting_config(command.evaluation, command, store.spec, sampler.steps, target_return)
    trials = trials_of(command.evaluation, command)
    evaluations: dict[int, Rollout] = {}

    summarize = functools.partial(
        _summary,
        command,
        environment=env.id,
        reference=reference_of(references, command.evaluation.split),
        data_fingerprint=store.fingerprint,
        target_return=acting.target_return,
    )
    with _logger(
        folder, resumed_at=int(jax.device_get(state.step)) + 1 if resuming or command.resume == AUTO else None
    ) as logger:

        def evaluate(parameters: Parameters, step: int) -> Mapping[str, float]:
            if acting_mesh is None:
                parameters = gathered(parameters)
                if not main:
                    wait_for_process_0(f"evaluation {step}")
                    return {}
            try:
                policy = make_policy(actor, parameters, normalization, acting)
                with progress_bar("trials") as advance:
                    found = evaluate_policy(policy, env, command.evaluation, trials, advance)
            finally:
                if acting_mesh is None:
                    wait_for_process_0(f"evaluation {step}")
            evaluations[step] = found
            if logger is not None:
                summary = summarize(found)
                logger.trials(summary["trial_returns"], step)
                logger.figure("trials", runs_figure([summary]), step)
            return scores_of(found)

        if logger is not None:
            logger.text("config", as_yaml(command))
        result = train(
            agent,
            state,
            functools.partial(_batches, command, sampler, mesh),
            command.training,
            checkpointer=checkpointer,
            logger=logger,
            evaluate=evaluate,
            metadata=metadata,
            resumed=resumed,
            profile=folder if command.profile and main else None,
            progress=main,
        )
        if result.interrupted:
            line = f"stopped and saved at step {result.steps}; `ringrl train resume={folder}` goes on."
            raise Preempted(line) if result.preempted else KeyboardInterrupt(line)

        whole = gathered(result.state.params) if command.evaluation.video else None
        if logger is None:
            return wait_for_process_0("results")
        found = evaluations[max(evaluations)]
        summary = summarize(found, result=result)
        logger.hparams(as_plain(command), {f"final/{name}": value for name, value in scores_of(found).items()})
        save_png(
            training_curves(result.losses, evaluations, command.label or command.agent.name), folder / "curves.png"
        )
        write_results(summary, found, folder)
        if whole is not None:
            policy = make_policy(agent_of(command, store.spec), whole, normalization, acting)
            video = write_video(policy, env, command.evaluation, trials, folder)
            logger.video("trials", video.frames, result.steps, video.fps)
            console.print(f"video: {video.path}")
    console.print(f"run folder: {folder}")
    wait_for_process_0("results")


def _batches(command: TrainCommand, sampler: ChainSampler, mesh: Any, start: int) -> Iterator[Chain]:
    """Batches start, start + 1, ...; with a mesh this process builds what its devices hold, in attention's layout."""
    training, attention = command.training, command.attention
    load = functools.partial(
        make_loader,
        sampler,
        seed=command.seed,
        batch_size=training.batch_size,
        start=start,
        stop=training.steps,
        threads=training.loader_threads,
        prefetch=training.prefetch,
    )
    if mesh is None:
        return map(jax.device_put, load())
    order = np.arange(sampler.steps)
    if attention.strategy.is_sharded:
        order = step_order(attention.strategy, attention.layout, sampler.steps, mesh)
    batches = BatchParts(mesh, training.batch_size, order)
    return map(batches.join, load(parts=batches.parts))


def _logger(folder: Path, resumed_at: int | None) -> contextlib.AbstractContextManager[TensorBoardLogger | None]:
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


def with_defaults(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's metadata, keys that its version did not know at their defaults."""
    return {**metadata, "config": as_plain(build(TrainCommand, metadata["config"]))}


def must_agree(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a checkpoint's metadata without which continuing would not be continuing."""
    config = metadata["config"]
    sections = {name: config[name] for name in ("seed", "agent", "model", "chain", "data")}
    return {"config": sections, "data_fingerprint": metadata["data_fingerprint"]}


def _summary(
    command: TrainCommand,
    found: Rollout,
    *,
    environment: str,
    reference: Reference | None,
    data_fingerprint: str,
    target_return: float,
    result: TrainResult | None = None,
) -> dict[str, Any]:
    return build_summary(
        agent=command.agent.name,
        environment=environment,
        seed=command.seed,
        rollout=found,
        reference=reference,
        train=None if result is None else {**vars(result)},
        config=as_plain(command),
        data_fingerprint=data_fingerprint,
        label=command.label or None,
        bootstrap_samples=command.evaluation.bootstrap_samples,
        extra={"target_return": target_return},
    )
