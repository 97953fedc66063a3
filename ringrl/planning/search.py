"""Searches with a compiler: the longest accepted chain, and comparisons of block sizes and strategies.

Pure functions: the caller passes `compile`, which maps a plan to a report.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from ringrl.errors import RingRLError
from ringrl.ops import AttentionConfig
from ringrl.ops.config import Strategy
from ringrl.ops.ulysses import check_heads
from ringrl.parallel.mesh import MeshConfig
from ringrl.planning.cluster.meshes import whole_cluster
from ringrl.planning.plan import MAX_TOKENS, Plan, Report

BLOCK_SIZES = (256, 512, 1024, 2048, 4096)
BISECTIONS = 3  # of the interval between a context and its double: to an eighth of it

Compile = Callable[[Plan], Report]
Advance = Callable[[int, int], None]  # compilations done, and the number expected so far


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """Result of a search for the largest context."""

    largest: Report | None  # the largest accepted; None if not even the shortest chain was
    refused: Report | None  # the smallest refused; None if nothing up to MAX_TOKENS was
    reports: tuple[Report, ...]  # in the order of compilation


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One choice of a comparison: its plan, and the report or a one-line reason for its absence."""

    name: str
    plan: Plan
    report: Report | None = None
    reason: str = ""


def make_context_plans(plan: Plan) -> list[Plan]:
    """The plan with chains of every relevant power of two, shortest first, each rounded up to an even distribution.

    From the shortest legal chain to MAX_TOKENS; powers that round to the same number occur once.
    """
    powers = (plan.of(2**exponent) for exponent in range(plan.multiple.bit_length() - 1, MAX_TOKENS.bit_length()))
    return [power for power in powers if power.tokens <= MAX_TOKENS]


def search_context(
    plan: Plan, compile: Compile, guess: int, *, bisect: bool = False, advance: Advance | None = None
) -> SearchResult:
    """The largest context that is accepted, by powers of two; with `bisect`, to an eighth of it.

    A refusal takes seconds and an acceptance minutes, so it starts at the first context above `guess`, the tokens that
    fit by the formula: if refused, it goes down to the first that is accepted; if accepted, up to the first that is
    refused. Exceptions of `compile` are passed on.
    """
    ladder = make_context_plans(plan)
    reports: list[Report] = []

    def ask(one: Plan, expected: int) -> Report:
        if advance is not None:
            advance(len(reports), len(reports) + expected)
        reports.append(compile(one))
        return reports[-1]

    later = BISECTIONS if bisect else 0
    rung = next((index for index, one in enumerate(ladder) if one.tokens > guess), len(ladder) - 1)
    first = ask(ladder[rung], 2 + later)
    step = 1 if first.accepted else -1
    last, turned = first, None
    while turned is None and 0 <= rung + step < len(ladder):
        rung += step
        report = ask(ladder[rung], 1 + later)
        if report.accepted == first.accepted:
            last = report
        else:
            turned = report
    largest, refused = (last, turned) if first.accepted else (turned, last)
    if bisect and largest is not None and refused is not None:
        largest, refused = _bisect(plan, largest, refused, ask)
    if advance is not None:
        advance(len(reports), len(reports))
    return SearchResult(largest, refused, tuple(reports))


def _bisect(plan: Plan, largest: Report, refused: Report, ask: Callable[[Plan, int], Report]) -> tuple[Report, Report]:
    """Bisect between accepted and refused, to an eighth of the first accepted, or as close as rounding permits."""
    for left in range(BISECTIONS, 0, -1):
        middle = plan.of((largest.tokens + refused.tokens) // 2)
        if not largest.tokens < middle.tokens < refused.tokens:
            break
        report = ask(middle, left)
        largest, refused = (report, refused) if report.accepted else (largest, report)
    return largest, refused


def search_blocks(
    plan: Plan, compile: Compile, sizes: Sequence[int] = BLOCK_SIZES, *, advance: Advance | None = None
) -> list[Candidate]:
    """The plan with each block size, of queries and of keys; blocks larger than a device's shard are not compiled.

    Raises RingRLError for dense attention, which has no blocks, and as `_compiled` does.
    """
    if plan.attention.strategy is Strategy.dense:
        raise RingRLError("attention.strategy=dense has no blocks: search blocks of attention=blockwise or ring.")
    part = _part(plan)
    candidates = []
    for size in sizes:
        blocks = dataclasses.replace(plan.attention, query_block_size=size, key_block_size=size)
        reason = f"larger than the {part:,} tokens that a device attends to at once" if size > part else ""
        candidates.append(Candidate(f"{size:,}", dataclasses.replace(plan, attention=blocks), reason=reason))
    return _compiled(candidates, compile, advance)


def search_strategies(plan: Plan, compile: Compile, *, advance: Advance | None = None) -> list[Candidate]:
    """The plan with every distribution of its attention over the target's devices, except those of mesh.data.

    Blockwise (whole chains, at least one on each device: the batch is enlarged if needed), the ring, Ulysses, and every
    hybrid of both. An illegal choice has a reason. Raises RingRLError as `_compiled` does.
    """
    return _compiled(list(_strategies(plan)), compile, advance)


def _strategies(plan: Plan) -> Iterator[Candidate]:
    data = plan.sizes["data"]
    devices = plan.target.devices // data
    chains = devices * data * plan.training.gradient_accumulation
    whole = dataclasses.replace(plan.training, batch_size=plan.chains + -plan.chains % chains)
    name = "blockwise" if whole == plan.training else f"blockwise, {whole.batch_size} chains"
    alone = dataclasses.replace(plan, training=whole)

    def mesh_of(strategy: Strategy) -> MeshConfig:
        mesh = whole_cluster(strategy, plan.model.width, devices)
        return dataclasses.replace(mesh, data=data * mesh.data)

    yield _strategy(alone, name, Strategy.blockwise, mesh_of(Strategy.blockwise))
    if devices == 1:
        return
    yield _strategy(plan, "ring", Strategy.ring, mesh_of(Strategy.ring))
    for head in (n for n in range(2, devices) if devices % n == 0):
        mesh = MeshConfig(data=data, ring=devices // head, head=head)
        yield _strategy(plan, f"hybrid, head={head} ring={mesh.ring}", Strategy.hybrid, mesh)
    yield _strategy(plan, "ulysses", Strategy.ulysses, mesh_of(Strategy.ulysses))


def _strategy(plan: Plan, name: str, strategy: Strategy, mesh: MeshConfig) -> Candidate:
    attention: AttentionConfig = dataclasses.replace(plan.attention, strategy=strategy)
    chosen = dataclasses.replace(plan, attention=attention, mesh=mesh)
    try:
        check_heads(plan.model.heads, 1 if strategy is Strategy.ring else mesh.head)
        return Candidate(name, chosen.of(plan.tokens))
    except RingRLError as error:
        return Candidate(name, chosen, reason=str(error))


def _compiled(candidates: Sequence[Candidate], compile: Compile, advance: Advance | None) -> list[Candidate]:
    """Each candidate with its report; an error of `compile` is that candidate's reason, unless all fail."""
    errors: list[RingRLError] = []
    done: list[Candidate] = []
    asked = [candidate for candidate in candidates if not candidate.reason]
    for candidate in candidates:
        if candidate.reason:
            done.append(candidate)
            continue
        if advance is not None:
            advance(sum(one.report is not None for one in done) + len(errors), len(asked))
        try:
            done.append(dataclasses.replace(candidate, report=compile(candidate.plan)))
        except RingRLError as error:
            errors.append(error)
            done.append(dataclasses.replace(candidate, reason=str(error)))
    if errors and len(errors) == len(asked):
        raise errors[0]
    if advance is not None:
        advance(len(asked), len(asked))
    return done


def _part(plan: Plan) -> int:
    """Tokens of a chain on one device during attention: all if heads are exchanged among all devices."""
    sizes, strategy = plan.sizes, plan.attention.strategy
    devices = {Strategy.ring: sizes["ring"] * sizes["head"], Strategy.hybrid: sizes["ring"]}.get(strategy, 1)
    return plan.tokens // devices
