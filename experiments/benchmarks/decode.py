"""Acting from a cache of keys and values against running the whole context again at every step.

`CachedPolicy` and `RecomputingPolicy` of `ringrl.evaluation.policy` act in one environment, history, sampling and
Python included. The recomputing side is given the faster of dense and blockwise attention.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.lib.results import make_goal, make_parser, print_goals, write_results
from experiments.lib.sizes import load_model_config
from experiments.lib.timing import measure_interleaved, measure_seconds
from ringrl.agents import AgentConfig, SequenceAgent, make_agent
from ringrl.cli.huge_pages import restart_with_huge_pages
from ringrl.evaluation.policy import ActingConfig, CachedPolicy, HistoryPolicy, RecomputingPolicy
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.types import ActionKind, ActionSpec, Context, DataSpec, Normalization

NORMALIZATION = Normalization(np.zeros(4, np.float32), np.ones(4, np.float32))
EPISODE_STEPS = 20
STEPS = 10  # acted in a row, of which the mean counts as one measurement
ACTIVE = np.ones(1, bool)


def agent_with_parameters(model: ModelConfig, attention: AttentionConfig) -> tuple[SequenceAgent, Any]:
    """An untrained Agentic Transformer, one token a step, for hidden-goal PointMaze's sizes."""
    spec = DataSpec(4, ActionSpec(ActionKind.continuous, 2, (-1.0, -1.0), (1.0, 1.0)), EPISODE_STEPS)
    agent = make_agent(AgentConfig(), model, attention, spec, context=Context.chain)
    return agent, jax.jit(agent.init)(jax.random.key(0))


def act(policy: HistoryPolicy) -> None:
    """One step in one environment, whose trials last `EPISODE_STEPS`."""
    policy.act(np.ones((1, 4)), ACTIVE)
    policy.observe(np.zeros(1), policy.history.lengths % EPISODE_STEPS == 0, ACTIVE)


def cached_at(model: ModelConfig, tokens: int, repeats: int) -> CachedPolicy:
    """A policy that will have `tokens` tokens in its context when all repeats are over."""
    agent, parameters = agent_with_parameters(model, AttentionConfig())
    policy = CachedPolicy(agent, parameters, NORMALIZATION, ActingConfig(target_return=1.0, capacity=tokens))
    policy.reset(1, seed=0)
    for _ in range(tokens - STEPS * repeats):
        act(policy)
    return policy


def recomputing_like(cached: CachedPolicy, strategy: str) -> RecomputingPolicy:
    """The same context without a cache."""
    agent, parameters = agent_with_parameters(cached.agent.model_config, AttentionConfig(strategy=strategy))
    policy = RecomputingPolicy(agent, parameters, NORMALIZATION, cached.config)
    policy.reset(1, seed=0)
    for _ in range(2):  # the first time compiles
        policy.history = copy.deepcopy(cached.history)
        act(policy)
    return policy


def flops_of_a_step(model: ModelConfig, tokens: int) -> dict[str, float]:
    """Of one token: two a matrix entry, and four a key and layer for the attention, which grows with the context."""
    feedforward_width = model.feedforward_width or 4 * model.width
    layers = model.layers * (4 * model.width**2 + 2 * model.width * feedforward_width)
    return {"matrices": 2.0 * layers, "attention": 4.0 * tokens * model.width * model.layers}


def measure(size: str, contexts: list[int], repeats: int) -> dict[str, Any]:
    """Seconds per step by context, cached and not."""
    model = load_model_config(size)
    cached = {tokens: cached_at(model, tokens, repeats) for tokens in contexts}
    longest = max(contexts)
    recomputing = {name: recomputing_like(cached[longest], name) for name in ("dense", "blockwise")}

    def steps(policy: CachedPolicy) -> Callable[[], float]:
        return lambda: measure_seconds(lambda: act(policy), STEPS)

    def whole(policy: RecomputingPolicy) -> Callable[[], float]:
        return lambda: measure_seconds(lambda: act(policy))

    candidates = {f"cached at {tokens}": steps(policy) for tokens, policy in cached.items()}
    candidates |= {f"{name} recomputing at {longest}": whole(policy) for name, policy in recomputing.items()}
    seconds = measure_interleaved(candidates, repeats)
    medians = {name: found["median"] for name, found in seconds.items()}
    fastest = min(medians[f"{name} recomputing at {longest}"] for name in recomputing)
    return {
        "seconds_per_step": seconds,
        "speedup": fastest / medians[f"cached at {longest}"],
        "growth": medians[f"cached at {longest}"] / medians[f"cached at {min(contexts)}"],
        "flops_per_step": {tokens: flops_of_a_step(model, tokens) for tokens in contexts},
    }


def main() -> None:
    """Both model sizes; the goals are those of the smaller."""
    smoke = make_parser(__doc__).parse_args().smoke
    contexts, repeats = ([40, 80], 1) if smoke else ([500, 1000, 2000, 4000], 9)
    sizes = ("tiny",) if smoke else ("tiny", "small")
    results = {size: measure(size, contexts, repeats) for size in sizes}
    for size, found in results.items():
        for name, seconds in found["seconds_per_step"].items():
            print(f"decode: {size}: {name} tokens: {1e3 * seconds['median']:.3f} ms a step")
        first, last = (sum(found["flops_per_step"][tokens].values()) for tokens in (contexts[0], contexts[-1]))
        print(
            f"decode: {size}: cached acting is {found['speedup']:.0f} times faster at {contexts[-1]} tokens; from "
            f"{contexts[0]} to {contexts[-1]} tokens a step takes {found['growth']:.2f} times as long, "
            f"and {last / first:.2f} times the FLOPs"
        )
    goals = {}
    for size, found in results.items():
        goals[f"{size}: recomputing / cached, {contexts[-1]} tokens"] = make_goal(found["speedup"], 30, at_least=True)
        goals[f"{size}: {contexts[-1]} / {contexts[0]} tokens, cached"] = make_goal(
            found["growth"], 1.5, at_least=False
        )
    print_goals("decode", goals)
    if not smoke:
        write_results(Path(__file__).parent / "results" / "decode.json", "decode", models=results, goals=goals)


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
