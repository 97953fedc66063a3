"""Local attention kernels on one NVIDIA GPU: TFLOP/s of RingRL's xla, cudnn and auto beside cuDNN called directly.

Everything goes through RingRL's custom VJP, in bfloat16. In the same run: the rate of a large matrix product, what a
ring of eight makes of the kernel (eight shards of a sequence, in turn on the one GPU, each as its device would work)
beside one fused call, and how far each layout's ring is from float32. Writes results/gpu_kernels.json as it goes.
"""

import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lib.machine import describe_machine
from experiments.lib.results import make_parser
from ringrl.ops import AttentionConfig, Kernel, Layout, attention, dealing_order
from ringrl.ops.dropout import DropoutKeys
from ringrl.ops.kernels import KERNELS, Rows, choose_kernel, no_keys
from ringrl.ops.masks import Labels
from ringrl.ops.operands import LocalOptions, Operands
from ringrl.ops.ring import merge

RESULTS = Path(__file__).parent / "results" / "gpu_kernels.json"
WIDTH, SHARDS = 1024, 8  # heads x head size; devices of the ring that is played
NO_DROPOUT = (jnp.zeros(2, jnp.uint32), jnp.arange(1))


def drawn(length: int, head_size: int, width: int = WIDTH) -> list[jax.Array]:
    """Query, key, value, and the output's gradient."""
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(key, (1, length, width // head_size, head_size), jnp.bfloat16) for key in keys]


def seconds(run: Callable[..., Any], *arguments: Any) -> float:
    """Wall-clock seconds of one call; it waits for the result."""
    began = time.perf_counter()
    jax.block_until_ready(run(*arguments))
    return time.perf_counter() - began


def rates(candidates: dict[str, Callable], arguments: list[jax.Array], flops: float, repeats: int) -> dict[str, Any]:
    """TFLOP/s of each by its median time, all run in turn so that slow spells hit all alike; or why it failed."""
    found: dict[str, list[float]] = {}
    failed: dict[str, Any] = {}
    for name, run in candidates.items():
        try:
            seconds(run, *arguments)  # compiles
            found[name] = []
        except Exception as error:  # one that runs out of memory must not take the others with it
            failed[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    for _ in range(repeats):
        for name, times in found.items():
            times.append(seconds(candidates[name], *arguments))
    medians = {name: statistics.median(times) for name, times in found.items()}
    return {name: {"seconds": value, "tflops": flops / value / 1e12} for name, value in medians.items()} | failed


def one_call(function: Callable, *, gradients: bool) -> Callable:
    """Jitted: the output, or the output and all gradients."""

    def both(query, key, value, output_gradient):
        output, pull_back = jax.vjp(function, query, key, value)
        return output, *pull_back(output_gradient)

    return jax.jit(both if gradients else lambda query, key, value, _: function(query, key, value))


def blocks(kernels: list[str], direct: str, length: int, head_size: int, causal: bool, repeats: int) -> dict[str, Any]:
    """One shape, forward alone and with its backward pass."""
    functions: dict[str, Callable] = {
        f"ringrl {kernel}": functools.partial(
            attention, config=AttentionConfig("blockwise", kernel=kernel), causal=causal
        )
        for kernel in kernels
    }
    functions[f"jax.nn {direct}"] = functools.partial(
        jax.nn.dot_product_attention, implementation=direct, is_causal=causal
    )
    flops = 4 * length**2 * WIDTH * (0.5 if causal else 1.0)
    case: dict[str, Any] = {"length": length, "head_size": head_size, "causal": causal}
    for name, factor in (("forward", 1.0), ("forward and backward", 3.5)):
        candidates = {which: one_call(function, gradients=factor > 1.0) for which, function in functions.items()}
        case[name] = rates(candidates, drawn(length, head_size), factor * flops, repeats)
    return case


class PlayedRing:
    """A ring's work, one device after another: every shard of queries against every shard of keys."""

    def __init__(self, layout: Layout, kernel: Kernel, length: int, shards: int, heads: int) -> None:
        self.order, self.shards = dealing_order(layout, length, shards), shards
        options = LocalOptions(True, None, 0.0, 512, 512, kernel)
        dropout, local = DropoutKeys(*NO_DROPOUT, jnp.arange(heads)), KERNELS[kernel]

        @jax.jit
        def forward(merged, queries, keys):
            return merge(merged, local.forward(options, queries, keys, dropout))

        @jax.jit
        def backward(gradients, queries, keys, merged, output_gradient):
            output, logsumexp = merged
            row_sums = (output * output_gradient.astype(output.dtype)).sum(axis=-1)
            rows = Rows(logsumexp, row_sums, output_gradient, output)
            return jax.tree.map(jnp.add, gradients, local.backward(options, queries, keys, dropout, rows))

        self.forward, self.backward = forward, backward

    def split(self, array: jax.Array) -> list[jax.Array]:
        """What lies on each device."""
        return list(jnp.split(array[:, self.order], self.shards, axis=1))

    def join(self, parts: list[jax.Array]) -> jax.Array:
        """In order again."""
        return jnp.concatenate(parts, axis=1)[:, np.argsort(self.order)]

    def __call__(self, query, key, value, output_gradient) -> list[jax.Array]:
        """Output and gradients, in order."""
        positions, output_gradients = jnp.arange(query.shape[1], dtype=jnp.int32)[None], self.split(output_gradient)
        arrays = map(self.split, (query, key, value, positions))
        parts = [Operands(q, k, v, Labels(p, jnp.zeros_like(p))) for q, k, v, p in zip(*arrays, strict=True)]
        pairs = [(i, (i - hop) % self.shards) for i in range(self.shards) for hop in range(self.shards)]
        zeros = functools.partial(jnp.zeros_like, dtype=jnp.float32)
        rows = [(zeros(part.query), no_keys(part.query.shape[:3], jnp.float32)) for part in parts]
        for i, j in pairs:
            rows[i] = self.forward(rows[i], parts[i].queries, parts[j].keys)
        by_query, by_key = ([zeros(p.query) for p in parts], [(zeros(p.key), zeros(p.value)) for p in parts])
        for i, j in pairs:
            found, blocks = (by_query[i], by_key[j]), (parts[i].queries, parts[j].keys)
            by_query[i], by_key[j] = self.backward(found, *blocks, rows[i], output_gradients[i])
        outputs = [output for output, _ in rows]
        return [self.join(list(found)) for found in (outputs, by_query, *zip(*by_key, strict=True))]


def played_rings(kernel: Kernel, direct: str, length: int, head_size: int, repeats: int) -> dict[str, Any]:
    """TFLOP/s of a ring of each layout, forward and backward, and of one call on the whole sequence."""
    heads = WIDTH // head_size
    candidates: dict[str, Callable] = {
        f"ring of {SHARDS}, {layout}": PlayedRing(layout, kernel, length, SHARDS, heads) for layout in Layout
    }
    whole = functools.partial(jax.nn.dot_product_attention, implementation=direct, is_causal=True)
    candidates[f"one call, jax.nn {direct}"] = one_call(whole, gradients=True)
    flops = 3.5 * 4 * length**2 * WIDTH * 0.5
    found = rates(candidates, drawn(length, head_size), flops, repeats)
    return {"length": length, "head_size": head_size, "causal": True, "forward and backward": found}


def errors(kernel: Kernel, length: int, head_size: int) -> dict[str, list[float]]:
    """Root mean square errors of output and gradients relative to those of dense attention in float32, by layout."""
    arrays = drawn(length, head_size, 2 * head_size)
    dense = one_call(functools.partial(attention, config=AttentionConfig("dense")), gradients=True)
    with jax.default_matmul_precision("highest"):
        truth = [np.float64(part) for part in dense(*(x.astype(jnp.float32) for x in arrays))]
    found = {}
    for layout in Layout:
        parts = PlayedRing(layout, kernel, length, SHARDS, 2)(*arrays)
        found[str(layout)] = [
            float(np.sqrt(np.mean((np.float64(part) - true) ** 2) / np.mean(true**2)))
            for part, true in zip(parts, truth, strict=True)
        ]
        assert max(found[str(layout)]) < 0.02, f"{kernel}, {layout}: errors {found[str(layout)]}"
    return found


def matmul_rate(size: int, repeats: int) -> float:
    """TFLOP/s of a square bfloat16 product."""
    matrix = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
    return rates({"matmul": jax.jit(jnp.matmul)}, [matrix, matrix], 2 * size**3, repeats)["matmul"]["tflops"]


def can_serve() -> bool:
    """Whether cuDNN serves here."""
    query = jax.ShapeDtypeStruct((1, 512, 8, 64), jnp.bfloat16)
    options = LocalOptions(True, None, 0.0, 512, 512, Kernel.auto)
    return choose_kernel(options, jax.devices()[0], query, 512) is Kernel.cudnn


def main() -> int:
    """Errors first, then rates; prints each as it is found."""
    smoke = make_parser(__doc__).parse_args().smoke  # by XLA alone, anywhere
    if not smoke and not can_serve():
        kind = jax.devices()[0].device_kind
        print(f"gpu_kernels: needs an NVIDIA GPU (Ampere or later) with cuDNN; here is: {kind}.", file=sys.stderr)
        return 2
    kernels, fused, direct = (
        (["xla"], Kernel.xla, "xla") if smoke else (["xla", "cudnn", "auto"], Kernel.cudnn, "cudnn")
    )
    lengths, head_sizes, repeats = ([256], [64], 1) if smoke else ([2**n for n in range(13, 18)], [64, 128], 5)
    results: dict[str, Any] = {
        "machine": describe_machine(),
        "width": WIDTH,
        "dtype": "bfloat16",
        "blocks": [],
        "rings": [],
    }

    def keep(key: str, value: Any) -> None:
        print(f"{key}: {json.dumps(value)}", flush=True)
        if isinstance(results.get(key), list):
            results[key].append(value)
        else:
            results[key] = value
        if not smoke:
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")

    keep("relative_errors", errors(fused, 256 if smoke else 4096, 64))
    keep("matmul_tflops", matmul_rate(256 if smoke else 8192, repeats))
    for head_size in head_sizes:
        for length in lengths:
            for causal in (True, False):
                keep("blocks", blocks(kernels, direct, length, head_size, causal, repeats))
        for length in lengths if smoke else lengths[2:]:
            keep("rings", played_rings(fused, direct, length, head_size, repeats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
