"""Whole training steps of the 350M Agentic Transformer on one NVIDIA GPU, by length of context.

Tokens a second, model FLOP utilization and peak memory of RingRL's step (blockwise attention by the fused kernel,
blockwise feed-forward and loss), beside memory-efficient attention alone (no blockwise feed-forward or loss) and dense
attention: bfloat16, one chain of 4 tokens a step, AdamW. Each length is measured in a process of its own, so that one
that runs out of memory takes nothing with it; lengths double until that happens. Writes results/h200.json as it goes.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lib.machine import describe_machine
from experiments.lib.random_data import make_random_chain
from experiments.lib.results import make_parser
from experiments.lib.sizes import load_model_config
from ringrl.agents import AgentConfig, SequenceAgent, make_agent
from ringrl.ops import AttentionConfig
from ringrl.training.config import TrainingConfig
from ringrl.training.device import needed_bytes, peak_flops
from ringrl.training.state import create_state
from ringrl.training.step import make_train_step
from ringrl.types import ActionKind, ActionSpec, Context, DataSpec

RESULTS = Path(__file__).parent / "results" / "h200.json"
TOKENS_PER_STEP, EPISODE, GOAL = 4, 1000, 0.45
SIZES_OF_A_STEP = OBSERVATION, ACTION = 24, 6  # ExoRL's walker
SPEC = DataSpec(OBSERVATION, ActionSpec(ActionKind.continuous, ACTION, (-1.0,) * ACTION, (1.0,) * ACTION), EPISODE)
SIZES = {"full": "at_350m", "smoke": "tiny"}
FIRST, SMOKE = 32 * 1024, 256  # tokens
LENGTHS = (32 * 1024, 128 * 1024, 512 * 1024)  # reported; beyond, the largest that fits
REMAT = ("attention", "layer", "offload")  # by falling memory: the first that fits
CANDIDATES: dict[str, dict[str, Any]] = {
    "ringrl": {"strategy": "blockwise", "block": 4096, "remat": REMAT},
    "memory-efficient": {"strategy": "blockwise", "block": 0, "remat": ("layer",)},
    "dense": {"strategy": "dense", "block": 0, "remat": ("layer",)},
}


def agent_of(name: str, remat: str, size: str) -> SequenceAgent:
    """The Agentic Transformer with the attention of a candidate."""
    candidate = CANDIDATES[name]
    options = {"remat": remat, "unroll_layers": False, "feedforward_block_size": candidate["block"]}
    return make_agent(
        AgentConfig(tokens_per_step=TOKENS_PER_STEP, loss_block_size=candidate["block"]),
        dataclasses.replace(load_model_config(SIZES[size]), **options),
        AttentionConfig(candidate["strategy"]),
        SPEC,
        context=Context.chain,
        compute_dtype=jnp.bfloat16,
    )


def measure(name: str, remat: str, tokens: int, size: str, repeats: int = 5) -> dict[str, Any]:
    """One program: seconds of a step (the median), and what follows from it."""
    agent, training = agent_of(name, remat, size), TrainingConfig(batch_size=1)
    steps = tokens // TOKENS_PER_STEP
    state, batch = (
        create_state(agent, training, 0),
        jax.device_put(make_random_chain(1, steps, *SIZES_OF_A_STEP, EPISODE)),
    )
    program = make_train_step(agent, training).lower(state, batch).compile()
    seconds = []
    for index in range(repeats + 2):
        began = time.perf_counter()
        state, metrics = program(state, batch)
        loss = float(metrics["loss"])
        if index >= 2:
            seconds.append(time.perf_counter() - began)
    assert np.isfinite(loss), f"{name} at {tokens} tokens: the loss is {loss}"
    median, device = statistics.median(seconds), jax.devices()[0]
    flops, peak = agent.train_flops(1, steps) / median, peak_flops(device.device_kind)
    memory = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "seconds": median,
        "tokens_per_second": tokens / median,
        "model_tflops": flops / 1e12,
        "mfu": None if peak is None else flops / peak,
        "peak_bytes": memory if memory is not None else needed_bytes(program),
    }


def in_a_process(name: str, remat: str, tokens: int, size: str) -> dict[str, Any]:
    """`measure` in a process of its own; what went wrong, in one line, where it did."""
    command = [sys.executable, __file__, "--measure", name, remat, str(tokens), size]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    errors = [line for line in done.stderr.splitlines() if "RESOURCE_EXHAUSTED" in line or "Error" in line]
    return {"error": (errors or done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1][:200]}


def longest_and_reported(name: str, size: str, keep) -> None:
    """Every length that is reported, doubling between, until the candidate no longer runs."""
    tokens = SMOKE if size == "smoke" else FIRST
    while True:
        for remat in CANDIDATES[name]["remat"]:
            found = in_a_process(name, remat, tokens, size)
            if "error" not in found:
                break
        keep({"candidate": name, "tokens": tokens, "remat": remat, **found})
        if "error" in found or size == "smoke":
            return
        tokens *= 2


def main() -> int:
    """Each candidate in turn; prints each figure as it is found, and at the end whether the goal is met."""
    parser = make_parser(__doc__)
    parser.add_argument("--measure", nargs=4, metavar=("NAME", "REMAT", "TOKENS", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, remat, tokens, size = options.measure
        print(json.dumps(measure(name, remat, int(tokens), size, repeats=1 if size == "smoke" else 5)))
        return 0
    if not options.smoke and jax.devices()[0].platform != "gpu":
        print(f"h200: needs an NVIDIA GPU; here is: {jax.devices()[0].device_kind}. --smoke runs.", file=sys.stderr)
        return 2
    size = "smoke" if options.smoke else "full"
    results: dict[str, Any] = {"machine": describe_machine(), "model": SIZES[size], "reported": LENGTHS, "rows": []}

    def keep(row: dict[str, Any]) -> None:
        print(json.dumps(row), flush=True)
        results["rows"].append(row)
        if not options.smoke:
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")

    for name in CANDIDATES:
        longest_and_reported(name, size, keep)
    long = [row["mfu"] for row in results["rows"] if row["candidate"] == "ringrl" and row["tokens"] >= LENGTHS[1]]
    if any(long):
        lowest = min(value for value in long if value)
        print(f"h200: MFU at 128K tokens and more: {lowest:.1%} (goal >= {GOAL:.0%})")
    return int(options.smoke and any("error" in row for row in results["rows"]))


if __name__ == "__main__":
    sys.exit(main())
