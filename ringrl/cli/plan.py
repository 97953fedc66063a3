"""`ringrl plan`: what fits on a cluster, according to that cluster's own compiler and without the cluster."""

import dataclasses
import datetime
import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from matplotlib.figure import Figure
from rich.console import RenderableType

from ringrl.cli import plan_tables as tables
from ringrl.cli.compose import as_plain
from ringrl.cli.console import output, progress_bar, table_width
from ringrl.cli.plan_facts import compute_facts, fact_lines
from ringrl.config import PlanCommand, Search
from ringrl.data import data_root
from ringrl.errors import RingRLError
from ringrl.evaluation.figures import save_png
from ringrl.evaluation.summary import git_commit
from ringrl.files import write_atomically
from ringrl.ops.automatic import settle_by_size
from ringrl.ops.config import Strategy
from ringrl.ops.sharded import AXES_OF
from ringrl.ops.ulysses import check_heads
from ringrl.planning.cluster.compilers import install_command
from ringrl.planning.cluster.meshes import whole_cluster
from ringrl.planning.cluster.targets import Target, fill_specification
from ringrl.planning.compile.process import compile_plan, has_compiler
from ringrl.planning.model.memory import largest_context, predict_memory
from ringrl.planning.plan import MAX_TOKENS, TRAJECTORY_STEPS, Plan, Report
from ringrl.planning.report.figures import candidates_figure, plan_figure
from ringrl.planning.search import Candidate, Compile, search_blocks, search_context, search_strategies


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The final plan, the lines to print, and the data to plot and store."""

    plan: Plan
    shown: Sequence[RenderableType]
    figure: Figure
    reports: tuple[Report, ...] = ()
    candidates: tuple[Candidate, ...] = ()


def run(command: PlanCommand, folder: Path) -> None:
    """Plan, print, and write plan.json and plan.png into `folder`."""
    console = output()
    plan, notes = make_plan(command)
    title = f"{model_name() or f'{plan.model.layers} layers of {plan.model.width}'} on {plan.target.name}"
    if not command.compile or not has_compiler(plan.target):
        if command.search in (Search.blocks, Search.strategy):
            remedy = describe_installation(plan) if command.compile else "leave compile=false out."
            raise RingRLError(f"search={command.search} compares what compilers say: {remedy}")
        if command.compile:
            notes.append(f"No compiler for {plan.target.topology}: by the formula alone. {describe_installation(plan)}")
        outcome = plan_by_formula(command, plan, title)
    else:
        cache = data_root() / "plans" if command.cache else None
        compile = functools.partial(compile_plan, cache=cache, scratch=folder)
        outcome = plan_by_compiler(command, plan, compile, title)

    printed = output(table_width(console))
    for line in notes:
        console.print(line)
    for item in outcome.shown:
        if isinstance(item, str):
            console.print(item)
        else:
            printed.print(item, "", sep="\n")
    write_atomically(folder / "plan.json", json.dumps(record(command, outcome), indent=1) + "\n")
    save_png(outcome.figure, folder / "plan.png")
    console.print(f"run folder: {folder}")


def plan_by_compiler(command: PlanCommand, plan: Plan, compile: Compile, title: str) -> Outcome:
    """Run one plan, or a search, compiling each candidate."""
    with progress_bar("compilations") as advance:
        if command.search in (Search.blocks, Search.strategy):
            compare = search_blocks if command.search is Search.blocks else search_strategies
            candidates = compare(plan, compile, advance=advance)
            table = tables.candidates_table(str(command.search), candidates)
            figure = candidates_figure(candidates, title=title)
            return Outcome(plan, [table], figure, candidates=tuple(candidates))
        if command.search is Search.context:
            guess = largest_context(plan)
            found = search_context(plan, compile, guess, bisect=command.bisect, advance=advance)
            reports, shown = found.reports, [tables.search_table(plan, found)]
            report, verdict = found.largest, tables.found_verdict(plan, found)
        else:
            advance(0, 1)
            report = compile(plan)
            reports, shown, verdict = (report,), [], tables.verdict(plan, report)
    of_reports = [plan.of(report.tokens) for report in reports]
    formula = {one.tokens: predict_memory(one).terms for one in of_reports}
    figure = plan_figure(reports, title=title, predicted=formula)
    if report is None:
        return Outcome(of_reports[-1], [*shown, verdict], figure, tuple(reports))
    plan = plan.of(report.tokens)
    if report.memory is not None:
        shown += [tables.memory_table(report), tables.buffers_table(report)]
        shown += [tables.transfers_table(report)] if report.transfers else []
    shown += [*fact_lines(plan, model_name() if report.accepted else ""), verdict]
    return Outcome(plan, shown, figure, tuple(reports))


def plan_by_formula(command: PlanCommand, plan: Plan, title: str) -> Outcome:
    """Evaluate the closed form alone; every line about memory states that."""
    largest = largest_context(plan) if command.search is Search.context else None
    if largest == 0:
        shortest = plan.of(1)
        raise RingRLError(
            f"Not even the shortest chain fits: {tables.formula_verdict(shortest, predict_memory(shortest).total)}"
        )
    plan = plan if largest is None else plan.of(largest)
    terms = predict_memory(plan).terms
    nearby = {
        one.tokens: predict_memory(one).terms
        for one in (plan.of(plan.tokens // 2), plan, plan.of(2 * plan.tokens))
        if one.tokens <= MAX_TOKENS
    }
    figure = plan_figure((), title=f"{title}, by the formula", predicted=nearby, limit=plan.target.memory)
    shown = [
        tables.formula_table(plan, terms),
        *fact_lines(plan, model_name() if predict_memory(plan).total <= plan.target.memory else "", by_formula=True),
        tables.formula_verdict(plan, predict_memory(plan).total, largest),
    ]
    return Outcome(plan, shown, figure)


def make_plan(command: PlanCommand) -> tuple[Plan, list[str]]:
    """The plan that a command describes, and lines about what was rounded or chosen.

    Raises RingRLError for an unknown target, a mesh that does not match it, and heads that do not divide.
    """
    target, mesh, training, notes = fill_specification(find_target(command)), command.mesh, command.training, []
    if all(size == 1 for size in mesh.sizes.values()) and target.devices > 1:
        mesh = whole_cluster(command.attention.strategy, command.model.width, target.devices)
    plan = Plan(
        target=target,
        tokens=command.tokens,
        agent=command.agent,
        model=command.model,
        attention=command.attention,
        mesh=mesh,
        training=training,
        data=command.shape,
    )
    _, exchange = AXES_OF.get(plan.attention.strategy, ((), ()))
    check_heads(command.model.heads, math.prod(plan.sizes[axis] for axis in exchange))
    groups = plan.sizes["data"] * plan.sizes["fsdp"] * training.gradient_accumulation
    if training.batch_size % groups:
        chains = training.batch_size + -training.batch_size % groups
        notes.append(
            f"training.batch_size={training.batch_size} is planned as {chains}: a chain for each group of devices."
        )
        plan = dataclasses.replace(plan, training=dataclasses.replace(training, batch_size=chains))
    if command.trajectories:
        plan = dataclasses.replace(plan, tokens=command.trajectories * TRAJECTORY_STEPS * plan.tokens_per_step)
    if plan.attention.strategy is Strategy.auto:
        # The search is for long chains, which are always blockwise.
        tokens = MAX_TOKENS if command.search is not Search.none else plan.tokens
        chains = plan.chains // groups or 1
        attention = settle_by_size(plan.attention, chains, tokens, plan.model.heads)
        notes.append(f"attention.strategy=auto is planned as {attention.strategy}.")
        plan = dataclasses.replace(plan, attention=attention)
    rounded = plan.of(plan.tokens)
    if rounded.tokens != plan.tokens:
        notes.append(f"{plan.tokens:,} tokens are planned as {rounded.tokens:,}, a multiple of {plan.multiple:,}.")
    if rounded.tokens > MAX_TOKENS:
        most = MAX_TOKENS - MAX_TOKENS % plan.multiple
        raise RingRLError(
            f"A chain of {rounded.tokens:,} tokens: positions are 32-bit, so {most:,} tokens, "
            f"{plan.of(most).trajectories:,.0f} trajectories, are the most."
        )
    return rounded, notes


def model_name() -> str:
    """The choice of conf/model; empty if single keys of the model were changed."""
    hydra = HydraConfig.get()
    changed = any(word.lstrip("+~").startswith("model.") for word in hydra.overrides.task)
    return "" if changed else str(hydra.runtime.choices.get("model", ""))


def find_target(command: PlanCommand) -> Target:
    """The target, without its name if single keys of it were changed."""
    keys = [word.lstrip("+~").partition("=")[0] for word in HydraConfig.get().overrides.task]
    changed = any(key.startswith("target.") for key in keys) and "target.name" not in keys
    return dataclasses.replace(command.target, name="") if changed else command.target


def describe_installation(plan: Plan) -> str:
    """A sentence on how to install the compiler."""
    return f"This installs it: {install_command(plan.target.platform)}"


def record(command: PlanCommand, outcome: Outcome) -> dict[str, Any]:
    """The contents of plan.json: the request, the results of compilers and formula, and their versions."""
    return {
        "config": as_plain(command),
        "plan": json.loads(outcome.plan.to_json()),
        "facts": compute_facts(outcome.plan, model_name()),
        "formula": {**predict_memory(outcome.plan).terms, "total": predict_memory(outcome.plan).total},
        "reports": [dataclasses.asdict(report) for report in outcome.reports],
        "candidates": [dataclasses.asdict(candidate) for candidate in outcome.candidates],
        "date": datetime.date.today().isoformat(),
        "git_commit": git_commit(),
    }
