"""Facts about a plan without compiling it: FLOPs, the shortest chain that can hide a hop, the paper's context."""

import dataclasses
import math
from typing import Any

from ringrl.cli.plan_tables import paper_line
from ringrl.ops.config import Layout
from ringrl.planning.model.roofline import hop_minimum, meets_minimum, plan_minimum
from ringrl.planning.model.work import step_work
from ringrl.planning.plan import Plan
from ringrl.planning.report.figures import context_name
from ringrl.planning.report.paper import paper_context


def compute_facts(plan: Plan, model_name: str) -> dict[str, Any]:
    """The facts as numbers for plan.json."""
    work, minimum = step_work(plan), plan_minimum(plan)
    return {
        "tokens": plan.tokens,
        "tokens_per_device": plan.tokens_per_device,
        "trajectories_of_1000_steps": plan.trajectories,
        "paper_tokens": paper_context(plan.target.name, model_name),
        "flops": {
            "needed": work.needed,
            "computed": work.computed,
            "attention_needed": work.attention,
            "attention_computed": work.attention_computed,
            "attention_of_the_busiest_device": work.busiest_attention,
            "attention_of_the_critical_path": work.critical_attention,
        },
        "minimal_block": minimum.block,
        "minimal_sequence_of_a_device": minimum.sequence,
        "minimal_tokens_of_a_device_for_a_forward_hop": hop_minimum(plan).block,
        "meets_minimal_block": meets_minimum(plan) if minimum.block else None,
    }


def fact_lines(plan: Plan, model_name: str, *, by_formula: bool = False) -> list[str]:
    """The facts in sentences; FLOPs and minima are arithmetic, whatever the source of the memory estimate."""
    work, minimum, part = step_work(plan), plan_minimum(plan), plan.tokens // plan.sequence_devices
    lines = [
        f"{context_name(plan.tokens)} tokens are {plan.trajectories:,.5g} trajectories of 1,000 steps "
        f"({plan.tokens_per_step} tokens a step), {part:,} tokens a device.",
        f"FLOPs of a step: {work.needed:.3g} needed, {work.computed:.3g} computed; attention is "
        f"{work.attention / work.needed:.0%} of those needed, and of the attention computed "
        f"{work.useful_attention:.0%} is needed (causal); the critical path is balanced to {work.balance:.0%}.",
    ]
    if (better := _better_layout(plan, work.balance)) is not None:
        lines.append(better)
    if minimum.block:
        hop = hop_minimum(plan)
        judged = "is" if hop.is_met(part) else "is NOT"
        six = "is" if minimum.is_met_as_the_paper_counts(part) else "is NOT"
        lines.append(
            f"For a forward hop to take no longer than the attention beside it: {math.ceil(hop.block):,} tokens a "
            f"device, which {judged} met; as the paper counts (all links, no mask, six blocks), "
            f"{math.ceil(minimum.sequence):,} tokens, {six} met."
        )
    beside = paper_line(plan, plan.tokens, model_name, by_formula=by_formula)
    return [*lines, beside] if beside else lines


def _better_layout(plan: Plan, balance: float) -> str | None:
    """Advice if another layout makes the ring's devices wait less."""
    if not plan.attention.strategy.is_sharded or plan.attention.layout is Layout.zigzag:
        return None
    zigzag = dataclasses.replace(plan, attention=dataclasses.replace(plan.attention, layout=Layout.zigzag))
    balanced = step_work(zigzag.of(plan.tokens)).balance
    if balanced < balance + 0.05:
        return None
    return f"With attention.layout=zigzag it would be balanced to {balanced:.0%}: devices wait less for each other."
