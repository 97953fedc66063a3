"""Temporary memory of a whole training step, a device, against tokens, over 1, 2, 4 and 8 devices: compiled, so exact.

The Agentic Transformer, one chain, attention=ring over mesh.ring=n, feed-forward and loss a block of 512 tokens at a
time, layers in a scan. Nothing runs and no array is made: XLA's compiler for CPUs says what it reserves beside
arguments and results (parameters, optimizer and the batch are arguments; the state is donated).

Three questions, each answered by differences or ratios of those bytes:

- linear: over n devices, does each doubling of the chain add twice what the one before added;
- flat: with as many tokens a device, are 2, 4 and 8 devices within 5 % of each other;
- policies: what each `model.remat` keeps, and the same without blocks.

Writes results/memory.json and memory.png and prints tables. `--smoke`: one small pair, and writes nothing.
"""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from experiments.lib.results import make_parser, make_table, write_results
from experiments.lib.sizes import load_model_config
from ringrl.evaluation.figures import INK, PALETTE, new_figure, save_png, tidy
from ringrl.ops import AttentionConfig
from ringrl.parallel import make_mesh
from ringrl.planning.compile.step import compile_step, synthetic_agent
from ringrl.training.config import TrainingConfig

RESULTS = Path(__file__).parent / "results"
DEVICES = (1, 2, 4, 8)
TOKENS = tuple(2**power for power in range(14, 19))  # of the chain: 16K to 256K
FULL = (("tiny", "float32"), ("small", "float32"))  # over all of these, for figure and linearity
OTHERS = (("tiny", "bfloat16"), ("small", "bfloat16"))  # flatness alone
OF_POLICIES = (("tiny", "float32"), ("small", "bfloat16"))
POLICIES = ("none", "dots", "attention", "layer", "offload")
BLOCK = 512
QUICK = {"xla_backend_optimization_level": 0}  # as many bytes, in half the time


@dataclasses.dataclass(frozen=True)
class Case:
    """A program."""

    model: str  # of conf/model
    dtype: str
    devices: int
    tokens: int  # of the chain
    remat: str = "layer"
    blocks: bool = True  # of the feed-forward and of the loss; attention always has them


def grid() -> list[Case]:
    """For the figure, for flatness, and for the policies."""
    sizes = [(devices, tokens) for devices in DEVICES for tokens in TOKENS]
    cases = [Case(*of, *size) for of in FULL for size in sizes]
    cases += [Case(*of, devices, 2**15 * devices) for of in OTHERS for devices in DEVICES[1:]]
    kept = [(remat, True) for remat in POLICIES] + [("layer", False), ("none", False)]
    few = ((2, 2**16), (8, 2**18), (8, 2**17))
    cases += [Case(*of, *size, *keeping) for of in OF_POLICIES for keeping in kept for size in few]
    return list(dict.fromkeys(cases))


def temporary_bytes(case: Case) -> dict[str, Any]:
    """A row: bytes a device on the device and, where a policy sends arrays there, in the host's memory."""
    model = dataclasses.replace(
        load_model_config(case.model),
        remat=case.remat,
        feedforward_block_size=BLOCK if case.blocks else 0,
        unroll_layers=False,
    )
    attention = AttentionConfig("ring", query_block_size=BLOCK, key_block_size=BLOCK)
    agent = synthetic_agent(
        model,
        attention,
        make_mesh(ring=case.devices),
        compute_dtype=jnp.dtype(case.dtype),
        loss_block_size=BLOCK if case.blocks else 0,
    )
    try:
        compiled = compile_step(agent, TrainingConfig(), 1, case.tokens, QUICK)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        return {**dataclasses.asdict(case), "refused": str(error).splitlines()[0]}
    found = compiled.memory_analysis()
    jax.clear_caches()
    return {
        **dataclasses.asdict(case),
        "temp_bytes": found.temp_size_in_bytes,
        "host_temp_bytes": found.host_temp_size_in_bytes,
        "argument_bytes": found.argument_size_in_bytes,
    }


def linearity(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each model over each number of devices: bytes that a token adds, from each length of the chain to the next."""
    found = []
    for (model, dtype), devices in itertools.product(FULL, DEVICES):
        points = sorted((row["tokens"], row["temp_bytes"]) for row in rows if _is(row, Case(model, dtype, devices, 0)))
        slopes = [
            (more - less) * devices / (longer - shorter)
            for (shorter, less), (longer, more) in itertools.pairwise(points)
        ]
        found.append({"model": model, "dtype": dtype, "devices": devices, "bytes_per_token": slopes})
    return found


def flatness(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each program at as many tokens a device: bytes over 2, 4 and 8 devices, and the largest over the smallest."""
    groups: dict[tuple, dict[int, int]] = {}
    for row in rows:
        if row["devices"] > 1 and "temp_bytes" in row:
            key = (row["model"], row["dtype"], row["remat"], row["blocks"], row["tokens"] // row["devices"])
            groups.setdefault(key, {})[row["devices"]] = row["temp_bytes"]
    names = ("model", "dtype", "remat", "blocks", "tokens_per_device")
    return [
        {**dict(zip(names, key, strict=True)), "temp_bytes": found, "ratio": max(found.values()) / min(found.values())}
        for key, found in groups.items()
        if len(found) > 1
    ]


def _is(row: dict[str, Any], case: Case) -> bool:
    """Whether a row is of the case, whatever its tokens."""
    return "temp_bytes" in row and all(
        row[name] == value for name, value in dataclasses.asdict(case).items() if name != "tokens"
    )


def draw(rows: list[dict[str, Any]]) -> Figure:
    """A panel a model, a line a number of devices."""
    figure = new_figure(5.4 * len(FULL), 4.4)
    for index, (model, dtype) in enumerate(FULL):
        axes = figure.add_subplot(1, len(FULL), index + 1)
        for color, devices in zip(PALETTE, DEVICES, strict=False):
            points = sorted(
                (row["tokens"], row["temp_bytes"]) for row in rows if _is(row, Case(model, dtype, devices, 0))
            )
            tokens, sizes = zip(*points, strict=True)
            mebibytes = [size / 2**20 for size in sizes]
            label = f"{devices} device{'s' if devices > 1 else ''}"
            axes.plot(tokens, mebibytes, color=color, linewidth=2, marker="o", markersize=4.5, label=label)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(TOKENS, [f"{tokens // 1024}K" for tokens in TOKENS])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("Tokens of the chain")
        axes.set_title(f"model={model}, {dtype}", loc="left", fontsize=10.5, color=INK)
        tidy(axes)
    figure.axes[0].set_ylabel("Temporary memory a device, MiB")
    figure.axes[0].legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown: a line a program, a column a size."""
    lines = []
    for row in rows:
        size = f"{row['temp_bytes'] / 2**20:.1f}" if "temp_bytes" in row else row["refused"]
        names = ("model", "dtype", "remat", "blocks", "devices")
        lines.append((*(row[name] for name in names), f"{row['tokens'] // 1024}K", size))
    return make_table(("model", "dtype", "remat", "blocks", "devices", "tokens", "MiB a device"), lines, left=4)


def main() -> None:
    """Compiles every case, then draws."""
    smoke = make_parser(__doc__).parse_args().smoke
    jax.config.update("jax_num_cpu_devices", max(DEVICES))
    cases = [Case("tiny", "float32", devices, 1024 * devices) for devices in (2, 4)] if smoke else grid()
    rows = []
    for case in cases:
        rows.append(temporary_bytes(case))
        print(json.dumps(rows[-1]), flush=True)
    print(table(rows))
    for found in flatness(rows):
        print(json.dumps(found))
    if smoke:
        return
    about = {"block_size": BLOCK, "strategy": "ring"}
    found = {"linearity": linearity(rows), "flatness": flatness(rows), "rows": rows}
    write_results(RESULTS / "memory.json", "memory", **about, **found)
    save_png(draw(rows), RESULTS / "memory.png")


if __name__ == "__main__":
    main()
