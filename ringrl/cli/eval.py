"""`ringrl eval checkpoint=RUN`: n trials of a trained agent, with the evaluation settings of its run by default."""

from pathlib import Path

import jax

from ringrl.cli.acting import evaluate_policy, find_reference
from ringrl.cli.compose import as_plain
from ringrl.cli.console import output, progress_bar
from ringrl.cli.devices import full_mesh
from ringrl.cli.environments import find_environment, is_own_environment
from ringrl.cli.preflight import check_filming
from ringrl.cli.results import write_results, write_video
from ringrl.cli.run_folder import hold_folder
from ringrl.config import EvalCommand
from ringrl.errors import RingRLError
from ringrl.evaluation.policy import make_policy
from ringrl.evaluation.summary import build_summary
from ringrl.parallel.multiprocess import agree_on_text, is_main_process, join_processes, wait_for_process_0
from ringrl.runs.acting import acting_config, count_trials
from ringrl.runs.agent import load_agent


def run(command: EvalCommand, folder: Path) -> None:
    """Rebuild the agent from its checkpoint alone, roll it out, and write the results into `folder`."""
    join_processes(command.distributed)
    folder = Path(agree_on_text(str(folder)))
    with hold_folder(folder, "eval"):
        _run(command, folder)


def _run(command: EvalCommand, folder: Path) -> None:
    console = output()
    if jax.process_count() > 1 and (command.evaluation.video or not command.evaluation.sharded):
        raise RingRLError("several processes evaluate together with evaluation.sharded=true, and film nothing.")
    mesh = full_mesh(command.mesh) if command.evaluation.sharded else None
    loaded = load_agent(command.checkpoint, command.which.value, warn=console.print, mesh=mesh)
    trained = loaded.command
    env = find_environment(command.env, loaded.metadata, warn=console.print)
    own = is_own_environment(env, loaded.metadata)
    evaluation = command.evaluation.of_run(trained.evaluation)
    acting = acting_config(evaluation, trained, loaded.agent.spec, loaded.chain_steps, loaded.target_return)
    trials = count_trials(evaluation, trained)
    policy = make_policy(loaded.agent, loaded.parameters, loaded.normalization, acting)

    if evaluation.video:
        check_filming(env, evaluation, folder)
    with progress_bar("trials") as advance:
        found = evaluate_policy(policy, env, evaluation, trials, advance)

    summary = build_summary(
        agent=trained.agent.name,
        environment=env.spec.id,
        seed=trained.seed,
        rollout=found,
        reference=find_reference(loaded.metadata, evaluation.split) if own else None,
        train={name: loaded.metadata.get(name) for name in ("tokens", "seconds")} | {"steps": loaded.metadata["step"]},
        config={**as_plain(trained), "eval": {**as_plain(command), "evaluation": as_plain(evaluation)}},
        data_fingerprint=loaded.metadata.get("data_fingerprint"),
        label=command.label or trained.label or None,
        bootstrap_samples=evaluation.bootstrap_samples,
        extra={"checkpoint": str(command.checkpoint), "target_return": acting.target_return},
    )
    if is_main_process():
        write_results(summary, found, folder)
    if evaluation.video:
        console.print(f"video: {write_video(policy, env, evaluation, trials, folder).path}")
    wait_for_process_0("results")
    console.print(f"results: {folder}")
