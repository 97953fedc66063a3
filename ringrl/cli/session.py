"""Preparation of a run of `ringrl train`: its data, agent, environment and state, checked before the first step."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from ringrl.agents import SequenceAgent
from ringrl.cli.acting import find_reference
from ringrl.cli.compilation import kept_programs
from ringrl.cli.compose import as_plain, format_yaml
from ringrl.cli.console import output, progress_bar
from ringrl.cli.continuing import (
    agree_on_changes,
    agree_on_resuming,
    drop_launch_settings,
    is_finished,
    show_changes,
    show_finished,
)
from ringrl.cli.devices import make_run_mesh, print_explanation, show_compiler_flags
from ringrl.cli.environments import Environment, find_environment, is_own_environment
from ringrl.cli.overrides import CONFIG_FILE
from ringrl.cli.preflight import check_acting, check_filming
from ringrl.cli.resuming import RecordedChange, plain_changes, write_changes
from ringrl.cli.run_folder import CHECKPOINTS, remove_run
from ringrl.config import TrainCommand
from ringrl.data import (
    ChainSampler,
    EpisodeStore,
    default_target_return,
    fit_normalization,
    in_environment,
    open_dataset,
)
from ringrl.errors import RingRLError
from ringrl.evaluation.policy import ActingConfig
from ringrl.evaluation.rollout import Rollout
from ringrl.evaluation.scores import Reference
from ringrl.evaluation.summary import build_summary
from ringrl.files import write_atomically
from ringrl.parallel.multiprocess import DistributedConfig, agree_on_text, first_process_first, is_main_process
from ringrl.runs.acting import acting_config, count_trials
from ringrl.runs.agent import make_run_agent
from ringrl.runs.record import REFERENCES, run_record
from ringrl.training.checkpoint import Checkpointer
from ringrl.training.programs import Programs
from ringrl.training.state import TrainState, create_state
from ringrl.types import Context, Normalization


@dataclasses.dataclass(frozen=True)
class Session:
    """The objects that a run uses from its first step on; each process has its own.

    Attributes:
        command: the command's configuration.
        folder: the run folder, held by this process.
        sampler: samples the chains that the agent learns from.
        acted_on: the data collected in the evaluation environment; with a single data set, all of it.
        agent: the agent, on the mesh of the run.
        acting_mesh: the devices that act together in an evaluation; None if process 0 acts on one device.
        env: the evaluation environment.
        acting: settings of acting.
        trials: number of trials of an evaluation.
        reference: the returns that count as 0 and 100, if known.
        state: the initial state of training, which donates it.
        checkpointer: writes and reads the run's checkpoints.
        metadata: metadata of every checkpoint.
        resumed: the metadata of the checkpoint from which `state` was restored; None at the start of a run.
        changes: every change of a setting since the start of the run, with its step.
        programs: cache of compiled programs, if any.
    """

    command: TrainCommand
    folder: Path
    sampler: ChainSampler
    acted_on: EpisodeStore
    agent: SequenceAgent
    acting_mesh: jax.sharding.Mesh | None
    env: Environment
    acting: ActingConfig
    trials: int
    reference: Reference | None
    state: TrainState
    checkpointer: Checkpointer
    metadata: dict[str, Any]
    resumed: Mapping[str, Any] | None
    changes: Sequence[RecordedChange]
    programs: Programs | None

    def summarize(self, found: Rollout, train: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The summary of an evaluation, including at the end that of the training before it (`train`)."""
        command = self.command
        return build_summary(
            agent=command.agent.name,
            environment=self.env.spec.id,
            seed=command.seed,
            rollout=found,
            reference=self.reference,
            train=train,
            config=as_plain(drop_launch_settings(command)),
            data_fingerprint=self.sampler.store.fingerprint,
            label=command.label or None,
            bootstrap_samples=command.evaluation.bootstrap_samples,
            extra={"target_return": self.acting.target_return, "config_changes": plain_changes(self.changes)},
        )


def prepare(command: TrainCommand, folder: Path) -> Session | None:
    """Read the data, create or restore agent, environment and state, and begin the run's record in its folder.

    Returns:
        The session; None if the run is finished, in which case its results are printed.

    Raises:
        RingRLError: a check fails; the folder is unchanged.
    """
    console, main = output(), is_main_process()
    checkpointer = Checkpointer(folder / CHECKPOINTS, command.training.keep_last, warn=console.print)
    resuming = agree_on_resuming(command, folder)
    sampler = _read_data(command, checkpointer if resuming else None)
    store = sampler.store
    mesh = make_run_mesh(command.mesh, command.attention)
    agent = make_run_agent(command, sampler.spec, mesh)
    if mesh is not None:
        show_compiler_flags(mesh, output(logged=False))  # which writes to the log itself

    # Contexts shorter than a chain are not sharded: that would have no benefit.
    acting_mesh = mesh if command.evaluation.sharded and command.chain.context is Context.chain else None
    acted_on = in_environment(store, command.env.id)
    env = find_environment(command.env, acted_on.metadata, warn=console.print)
    if main or acting_mesh is not None:
        check_acting(env, store.spec, command.evaluation)  # fails before training, not after
    if main and command.evaluation.video:
        check_filming(env, command.evaluation, folder)
    target_return = default_target_return(acted_on)
    acting = acting_config(command.evaluation, command, store.spec, sampler.steps, target_return)
    own = is_own_environment(env, acted_on.metadata)
    references = {name: acted_on.metadata.get(name) for name in REFERENCES} if own else {}
    metadata = run_record(as_plain(drop_launch_settings(command)), sampler, env.record(), target_return, references)

    definition = command.agent, command.model, command.attention, command.chain, command.training, command.mesh
    programs = kept_programs((*definition, sampler.spec))
    state = create_state(agent, command.training, command.seed, programs=programs)
    resumed, changes = None, []
    if resuming:
        changes = agree_on_changes(command, metadata, checkpointer.load_metadata("last"), folder, "newest")
        state, resumed = checkpointer.restore("last", like=state)  # falls back to the one before if it is damaged
        changes = agree_on_changes(command, metadata, resumed, folder, "restored")
        if is_finished(command, resumed, changes, folder):
            return show_finished(folder, console)
        show_changes(command, resumed, changes, console)
    metadata["config_changes"] = plain_changes(changes)
    if main:
        if not resuming:
            remove_run(folder)
        write_changes(changes, folder)
        write_atomically(folder / CONFIG_FILE, format_yaml(drop_launch_settings(command)))
    return Session(
        command=command,
        folder=folder,
        sampler=sampler,
        acted_on=acted_on,
        agent=agent,
        acting_mesh=acting_mesh,
        env=env,
        acting=acting,
        trials=count_trials(command.evaluation, command),
        reference=find_reference(references, command.evaluation.split),
        state=state,
        checkpointer=checkpointer,
        metadata=metadata,
        resumed=resumed,
        changes=changes,
        programs=programs,
    )


def explain_mesh(command: TrainCommand) -> None:
    """`mesh.explain=true`: print the sharding of the training state on the mesh; nothing is trained or written."""
    sampler = _read_data(command, None)
    agent = make_run_agent(command, sampler.spec, make_run_mesh(command.mesh, command.attention))
    print_explanation(agent, command.training)


def _read_data(command: TrainCommand, resumed_from: Checkpointer | None) -> ChainSampler:
    """Create the sampler of the command's chains, the same in every process."""
    with first_process_first("data"), progress_bar("reading") as advance:
        store = open_dataset(command.data, progress=advance)
    _check_alike(command, store.fingerprint)
    if resumed_from is None:
        normalization = fit_normalization(store, command.data.normalize_observations)
    else:  # another version might fit different scales than those of training
        normalization = Normalization.from_json(resumed_from.load_metadata("last")["normalization"])
    return ChainSampler(store, command.chain, normalization)


def _check_alike(command: TrainCommand, fingerprint: str) -> None:
    """Raise RingRLError in a process whose settings or data differ from process 0's."""
    alike = as_plain(dataclasses.replace(command, distributed=DistributedConfig()))
    digest = hashlib.sha256(f"{alike}{fingerprint}".encode()).hexdigest()
    if agree_on_text(digest) != digest:
        raise RingRLError(
            "This process was told or has something else than process 0: give all processes the same command and data "
            f"(here data_fingerprint={fingerprint})."
        )
