"""Benchmark of ring attention against other implementations: seconds, memory, and the largest share of work.

The published `ringattention` 0.1.2 (Liu, Zaharia and Abbeel's own code) is measured if it is installed. A device's
memory is reported by the compiler, work is counted from the blocks that each implementation computes: both are exact.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ringrl.config import BenchCommand
from ringrl.errors import RingRLError
from ringrl.ops import AttentionConfig, Layout, Strategy, attention, dealing_order
from ringrl.ops.bounds import block_is_masked
from ringrl.ops.masks import Labels
from ringrl.parallel import make_mesh

MIB = 2**20
PRODUCTS = 7  # products of queries and keys: two forward, five backward
RING, ZIGZAG, PUBLISHED = "ring", "ring, zigzag", "ringattention 0.1.2"
BLOCKWISE, JAX_DENSE = "blockwise, one device", "jax.nn.dot_product_attention, one device"
TOKENS = PartitionSpec(("data", "fsdp"), ("ring", "head"))

Run = Callable[..., jax.Array]  # query, key, value -> output


@dataclasses.dataclass(frozen=True)
class Problem:
    """Causal self-attention of one chain."""

    devices: int
    tokens: int
    dtype: str
    heads: int
    head_size: int
    block_size: int

    @property
    def block(self) -> int:
        """Tokens per block, at most those of a device."""
        return min(self.block_size, self.tokens // self.devices)

    @property
    def flops(self) -> float:
        """FLOPs of forward and backward, every pair that the mask allows counted once."""
        return PRODUCTS * 2.0 * self.heads * self.head_size * self.tokens * (self.tokens + 1) / 2

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of query, key, value and the output's gradient."""
        return 1, self.tokens, self.heads, self.head_size


def measure(problem: Problem, command: BenchCommand) -> dict[str, Any]:
    """Seconds (median of interleaved repeats) and temporary bytes per device of forward and backward, by candidate."""
    mesh = make_mesh(ring=problem.devices)
    programs = {name: _compile(problem, mesh, name, run) for name, run in candidates(problem, mesh, command).items()}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for repeat in range(command.repeats + bool(command.repeats)):  # the first one warms up
        for name, (compiled, arrays) in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(compiled(*arrays))
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    results = {}
    for name, (compiled, _) in programs.items():
        results[name] = {"temporary_mib": compiled.memory_analysis().temp_size_in_bytes / MIB}
        if command.repeats:
            median = statistics.median(seconds[name])
            results[name] |= {"seconds": median, "gflops": problem.flops / median / 1e9, "all_seconds": seconds[name]}
    layouts = {RING: Layout.contiguous, ZIGZAG: Layout.zigzag}
    work = {name: largest_work(problem, layout) for name, layout in layouts.items()}
    work[PUBLISHED] = work[RING]  # also contiguous, and it skips the same blocks
    return {**dataclasses.asdict(problem), "candidates": results, "largest_work_in_block_pairs": work}


def candidates(problem: Problem, mesh: jax.sharding.Mesh, command: BenchCommand) -> dict[str, Run]:
    """The implementations to measure, all with the same block size."""

    def ours(strategy: Strategy, layout: Layout = Layout.contiguous) -> Run:
        config = AttentionConfig(strategy, layout, query_block_size=problem.block, key_block_size=problem.block)
        positions = None
        if layout is not Layout.contiguous:
            order = dealing_order(layout, problem.tokens, problem.devices)
            positions = jax.device_put(jnp.asarray(order[None], jnp.int32), NamedSharding(mesh, TOKENS))
        return functools.partial(attention, config=config, mesh=mesh, positions=positions)

    runs = {RING: ours(Strategy.ring), ZIGZAG: ours(Strategy.ring, Layout.zigzag)}
    if command.published:
        runs[PUBLISHED] = published_ring(problem, mesh)
    if command.one_device:
        runs[BLOCKWISE] = ours(Strategy.blockwise)
        if problem.tokens <= command.dense_up_to:
            runs[JAX_DENSE] = functools.partial(jax.nn.dot_product_attention, is_causal=True)
    return runs


def published_ring(problem: Problem, mesh: jax.sharding.Mesh) -> Run:
    """The published package's function; raises RingRLError if it is not installed."""
    from jax._src import xla_bridge

    # The package expects it at its location before jax 0.8.1.
    jax.lib.xla_bridge = xla_bridge  # type: ignore[attr-defined]
    try:
        from ringattention import ringattention  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise RingRLError(
            "bench attention compares with the published ringattention 0.1.2, which is not installed: "
            "pip install 'ringrl[bench]', or leave it out with published=false."
        ) from None
    blocks = {
        "causal_block_size": 1,
        "deterministic": True,
        "dropout_rng": None,
        "attn_pdrop": 0.0,
        "query_chunk_size": problem.block,
        "key_chunk_size": problem.block,
        "dtype": jnp.dtype(problem.dtype),
        "policy": jax.checkpoint_policies.nothing_saveable,
        "precision": None,
        "prevent_cse": False,
    }

    def on_one_device(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        options = {"axis_name": "ring", "float32_logits": True, "cache_idx": None, "blockwise_kwargs": blocks}
        return ringattention(query, key, value, None, None, **options)

    return jax.shard_map(on_one_device, mesh=mesh, in_specs=(TOKENS,) * 3, out_specs=TOKENS, check_vma=False)


def largest_work(problem: Problem, layout: Layout) -> int:
    """Pairs of blocks that the busiest device computes, from the implementations' own skip decisions."""
    order = dealing_order(layout, problem.tokens, problem.devices)
    blocks = jnp.asarray(order.reshape(-1, 1, problem.block), jnp.int32)
    queries, keys = (index.reshape(-1) for index in np.indices((len(blocks), len(blocks))))
    segments = jnp.zeros((len(queries), 1, problem.block), jnp.int32)
    labels = (Labels(blocks[side], segments) for side in (queries, keys))
    masked = block_is_masked(*labels, causal=True, window=None)
    return int((~np.asarray(masked)).reshape(problem.devices, -1).sum(axis=1).max())


def matmul_gflops(repeats: int, size: int = 2048) -> float:
    """The peak rate of a float32 matrix product on the first device, the upper limit of attention's."""
    array = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(array, array))
    seconds = []
    for _ in range(max(repeats, 3)):
        began = time.perf_counter()
        jax.block_until_ready(product(array, array))
        seconds.append(time.perf_counter() - began)
    return 2.0 * size**3 / min(seconds) / 1e9


def _compile(problem: Problem, mesh: jax.sharding.Mesh, name: str, run: Run) -> tuple[Any, list[jax.Array]]:
    """Compile forward and backward for arrays in the candidate's sharding, and create such arrays."""
    alone = name in (BLOCKWISE, JAX_DENSE)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0]) if alone else NamedSharding(mesh, TOKENS)
    generator = np.random.default_rng(0)
    arrays = [jax.device_put(jnp.asarray(generator.normal(size=problem.shape), problem.dtype), place) for _ in range(4)]

    def both(query, key, value, output_gradient):
        output, pull_back = jax.vjp(run, query, key, value)
        return output, *pull_back(output_gradient)

    return jax.jit(both, out_shardings=place).lower(*arrays).compile(), arrays
