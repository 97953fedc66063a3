"""Output of `ringrl plan` on a terminal, limited to what its compilers reported: never a speed or a run's behavior."""

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from ringrl.ops.config import Strategy
from ringrl.planning.plan import MAX_TOKENS, Plan, Report
from ringrl.planning.report.figures import GIB, context_name, find_required_bytes, format_required_gib, sum_by_kind
from ringrl.planning.report.paper import paper_context
from ringrl.planning.search import Candidate, SearchResult

BY_FORMULA = "by the formula"


def verdict(plan: Plan, report: Report, refused: Report | None = None) -> str:
    """One sentence: what was accepted, and `refused` if that was tried too, by which compiler for which topology."""
    topology, compiler = plan.target.topology, _compiler(plan, report)
    tokens, schedule = f"{context_name(report.tokens)} tokens", format_hops(report)
    if report.memory is None:
        said = report.refusal.rstrip(".") or "it did not say why"
        return f"Refused at {tokens} by {compiler} for {topology}: {said}."
    size = _of(report)
    if plan.target.platform == "tpu" and report.accepted:
        beyond = "" if refused is None else f", refused at {context_name(refused.tokens)},"
        said = f"Accepted at {tokens}{beyond} by {compiler} for {topology}: {size} a device"
    else:
        judged = "within" if report.accepted else "over"
        said = f"The compiler ({compiler} for {topology}) reports {size} a device at {tokens}, {judged} the limit"
        more = None if refused is None else find_required_bytes(refused)
        if report.accepted and refused is not None and more is not None:
            said += f", and {more / GIB:.2f} GiB at {context_name(refused.tokens)}, over it"
    return f"{said}; the schedule puts {schedule} across compute." if schedule else f"{said}."


def found_verdict(plan: Plan, found: SearchResult) -> str:
    """The same for a search, whatever its end."""
    if found.largest is not None:
        said = verdict(plan.of(found.largest.tokens), found.largest, found.refused)
        if found.refused is None:
            said += f" No longer power of two was asked: positions are int32, and {MAX_TOKENS:,} tokens the most."
        return said
    assert found.refused is not None  # a search that accepts nothing has a refused report
    shortest = plan.of(found.refused.tokens)
    return f"Not even the shortest chain fits. {verdict(shortest, found.refused)}"


def formula_verdict(plan: Plan, total: float, largest: int | None = None) -> str:
    """One sentence if no compiler is installed, based on arithmetic alone."""
    limit = plan.target.memory
    judged = "within" if total <= limit else "over"
    size = f"{total / GIB:.2f} of {limit / GIB:.2f} GiB a device"
    tokens = f"{context_name(plan.tokens)} tokens"
    said = f"{size} at {tokens} on {plan.target.topology}, {judged} the limit, {BY_FORMULA}; no compiler was asked"
    if largest is None:
        return f"{said}."
    longest = f"the longest chain is {context_name(largest)} tokens" if largest else "no chain fits"
    return f"{said}; {longest}, {BY_FORMULA}."


def paper_line(plan: Plan, tokens: int, model_name: str, *, by_formula: bool = False) -> str | None:
    """The ring's context compared with the paper's for the same cluster and model; None if the paper has none."""
    paper = paper_context(plan.target.name, model_name)
    if paper is None or plan.attention.strategy is not Strategy.ring:
        return None
    source = f" {BY_FORMULA}" if by_formula else ""
    mine = f"{context_name(tokens)} in {plan.training.precision}{source}"
    return f"The paper's Table 3 has {context_name(paper)} here, in full precision; {mine} is {tokens / paper:g} times."


def format_hops(report: Report) -> str:
    """`62 of 62 hops`: the ring's hops that overlap computation, of those that could; empty without any."""
    return f"{report.hops_across_compute:,} of {report.hop_count:,} hops" if report.hops else ""


def memory_table(report: Report) -> Table:
    """A table with a row per kind of memory, for one device; empty if the compiler refused before reporting any."""
    table = _table(left=("memory of a device",), right=("GiB", "of the limit"))
    if report.memory is None:
        return table
    for kind, size in sum_by_kind(report.memory).items():
        table.add_row(kind, f"{size / GIB:.2f}", _share(size, report.limit))
    table.add_row("together", f"{report.memory.total / GIB:.2f}", _share(report.memory.total, report.limit))
    if report.memory.host:
        table.add_row("of the host", f"{report.memory.host / GIB:.2f}", "")
    return table


def formula_table(plan: Plan, terms: Mapping[str, float]) -> Table:
    """A table with a row per term of the formula, in bytes of one device, and their sum, marked as the formula's."""
    table = _table(left=("memory of a device",), right=("GiB", "of the limit"))
    for term, size in [*terms.items(), ("together", sum(terms.values()))]:
        table.add_row(Text(f"{term}, {BY_FORMULA}"), f"{size / GIB:.2f}", _share(size, plan.target.memory))
    return table


def buffers_table(report: Report) -> Table:
    """A table with a row per large temporary; equal ones are merged."""
    table = _table(left=("largest buffers", "shape"), right=("number", "GiB"))
    for buffer in report.buffers:
        together = f"{buffer.count * buffer.bytes / GIB:.3f}"
        table.add_row(Text(buffer.source), Text(buffer.shape), f"{buffer.count:,}", together)
    return table


def transfers_table(report: Report) -> Table:
    """A table with a row per kind of collective and place; `across` is a dash if no computation is left to overlap."""
    table = _table(left=("transfers", "from"), right=("times a step", "GiB sent a step", "across compute"))
    for one in report.transfers:
        across = "—" if not one.due else "yes" if one.across else "no"
        table.add_row(one.kind, Text(one.source), f"{one.times:,}", f"{one.bytes / GIB:.3f}", across)
    return table


def search_table(plan: Plan, found: SearchResult) -> Table:
    """A table with a row per requested context, the shortest first."""
    table = _table(left=(), right=("tokens", "trajectories", "GiB", "of the limit"))
    table.add_column("compiler", justify="left")
    for report in sorted(found.reports, key=lambda report: report.tokens):
        total = find_required_bytes(report)
        trajectories = f"{plan.of(report.tokens).trajectories:,.5g}"
        sizes = format_required_gib(report), "" if total is None else _share(total, report.limit)
        table.add_row(context_name(report.tokens), trajectories, *sizes, outcome(report))
    return table


def candidates_table(what: str, candidates: Sequence[Candidate]) -> Table:
    """A table with a row per choice; one that was not compiled has the reason."""
    table = _table(left=(what,), right=("GiB", "of the limit", "across compute"))
    table.add_column("compiler", justify="left", overflow="fold")
    for candidate in candidates:
        if (report := candidate.report) is None:
            table.add_row(candidate.name, "", "", "", Text(f"not asked: {candidate.reason}"))
            continue
        total = find_required_bytes(report)
        sizes = format_required_gib(report), "" if total is None else _share(total, report.limit)
        table.add_row(candidate.name, *sizes, format_hops(report) or "—", outcome(report))
    return table


def outcome(report: Report) -> str:
    """The outcome in one to three words."""
    if report.accepted:
        return "accepted"
    return "refused" if report.memory is None else "over the limit"


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in left:
        table.add_column(name, justify="left", overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _of(report: Report) -> str:
    limit = f" of {report.limit / GIB:.2f}" if report.limit else ""
    return f"{format_required_gib(report)}{limit} GiB"


def _share(size: float, limit: float) -> str:
    return f"{size / limit:.0%}" if limit else ""


def _compiler(plan: Plan, report: Report) -> str:
    """Names and versions of compilers, the target's own first."""
    ordered = sorted(report.compilers.items(), key=lambda item: item[0] == "jax")
    return " with ".join(f"{name} {version}" for name, version in ordered) or f"the {plan.target.platform} compiler"
