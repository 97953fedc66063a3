"""`ringrl train`: an agent on a data set, evaluated as it learns; `resume=RUN` continues a run in its folder."""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from hydra.core.hydra_config import HydraConfig
from rich.console import Console

from ringrl.cli.acting import acting_config, agent_of, evaluate_policy, reference_of, scores_of, trials_of
from ringrl.cli.compose import as_plain, as_yaml, load_yaml
from ringrl.cli.console import output, progress_bar
from ringrl.cli.environments import environment_of, is_own_environment, vector_environment
from ringrl.cli.overrides import CONFIG_FILE, changes
from ringrl.cli.results import write_results, write_video
from ringrl.config import TrainCommand
from ringrl.data import ChainSampler, default_target_return, fit_normalization, make_loader, open_dataset
from ringrl.data.store import spec_to_json
from ringrl.evaluation.figures import plot_training_curves, save_png
from ringrl.evaluation.policy import make_policy
from ringrl.evaluation.report import runs_figure
from ringrl.evaluation.rollout import Rollout, check_vector_env
from ringrl.evaluation.scores import Reference
from ringrl.evaluation.summary import build_summary, write_atomically
from ringrl.ops import step_order
from ringrl.parallel import make_mesh
from ringrl.training.checkpoint import Checkpointer
from ringrl.training.compatibility import check_compatible
from ringrl.training.compiler_flags import compiler_flags, describe_flags
from ringrl.training.loop import TrainResult, train
from ringrl.training.metrics import TensorBoardLogger
from ringrl.training.state import create_state
from ringrl.types import Parameters

_logger = logging.getLogger(__name__)
KEPT = ("ref_min_score", "ref_max_score", "reference_scores")  # of the data set's metadata, in every checkpoint


def run(command: TrainCommand, folder: Path) -> None:
    """Train, evaluate and write everything into `folder`."""
    console = output()
    resuming = command.resume is not None
    if resuming:
        command = load_yaml(TrainCommand, folder / CONFIG_FILE, changes(HydraConfig.get().overrides.task))

    with progress_bar("reading") as advance:
        store = open_dataset(command.data, progress=advance)
    normalization = fit_normalization(store, command.data.normalize_observations)
    sampler = ChainSampler(store, command.chain, normalization)
    mesh, order = None, None
    if command.attention.strategy.is_sharded:
        mesh = make_mesh(**dataclasses.asdict(command.mesh))
        order = step_order(command.attention.strategy, command.attention.layout, sampler.steps, mesh)
        show_compiler_flags(mesh, console)
    agent, actor = agent_of(command, store.spec, mesh), agent_of(command, store.spec)
    env = environment_of(command.env, store.metadata)
    with vector_environment(env, 1) as environments:  # what does not fit shows before training, not after
        check_vector_env(environments, store.spec)

    target_return = default_target_return(store)
    references = {name: store.metadata.get(name) for name in KEPT} if is_own_environment(env, store.metadata) else {}
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
    checkpointer = Checkpointer(folder / "checkpoints", command.training.keep_last, warn=console.print)
    state, resumed = create_state(agent, command.training, command.seed), None
    if resuming:
        check_compatible(checkpointer.load_metadata("last"), must_agree(metadata))
        state, resumed = checkpointer.restore("last", like=state)
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
    with TensorBoardLogger(folder, resumed_at=int(state.step) + 1 if resuming else None) as logger:

        def evaluate(parameters: Parameters, step: int) -> Mapping[str, float]:
            policy = make_policy(actor, _on_one_device(parameters), normalization, acting)
            with progress_bar("trials") as advance:
                found = evaluate_policy(policy, env, command.evaluation, trials, advance)
            evaluations[step] = found
            summary = summarize(found)
            logger.trials(summary["trial_returns"], step)
            logger.figure("trials", runs_figure([summary]), step)
            return scores_of(found)

        logger.text("config", as_yaml(command))
        result = train(
            agent,
            state,
            lambda start: make_loader(
                sampler,
                seed=command.seed,
                batch_size=command.training.batch_size,
                start=start,
                stop=command.training.steps,
                threads=command.training.loader_threads,
                prefetch=command.training.prefetch,
                order=order,
            ),
            command.training,
            checkpointer=checkpointer,
            logger=logger,
            evaluate=evaluate,
            metadata=metadata,
            resumed=resumed,
        )
        if result.interrupted:
            raise KeyboardInterrupt(
                f"stopped and saved at step {result.steps}; `ringrl train resume={folder}` goes on."
            )

        found = evaluations[max(evaluations)]
        summary = summarize(found, result=result)
        logger.hparams(as_plain(command), {f"final/{name}": value for name, value in scores_of(found).items()})
        save_png(_curves(result, evaluations, command.label or command.agent.name), folder / "curves.png")
        write_results(summary, found, folder)
        if command.evaluation.video:
            policy = make_policy(actor, _on_one_device(result.state.params), normalization, acting)
            video = write_video(policy, env, command.evaluation, trials, folder)
            logger.video("trials", video.frames, result.steps, video.fps)
            console.print(f"video: {video.path}")
    console.print(f"run folder: {folder}")


def show_compiler_flags(mesh: jax.sharding.Mesh, console: Console) -> None:
    """What `make_train_step` tells the compiler of these devices, if anything: on the console and in the run's log."""
    if flags := compiler_flags(mesh):
        line = describe_flags(mesh, flags)
        console.print(line)
        _logger.info(line)


def _on_one_device(parameters: Parameters) -> Parameters:
    return jax.device_put(parameters, jax.local_devices()[0])


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


def _curves(result: TrainResult, evaluations: Mapping[int, Rollout], title: str):
    steps, losses = zip(*result.losses, strict=True) if result.losses else ((), ())
    history = {"loss": (steps, losses)}
    if len(evaluations) > 1:
        scores = {step: scores_of(found) for step, found in sorted(evaluations.items())}
        for name in ("first", "last"):
            history[f"return of the {name} trial"] = (tuple(scores), tuple(value[name] for value in scores.values()))
    return plot_training_curves(history, title=title, log=("loss",))
