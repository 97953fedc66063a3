"""Compilation of attention for the devices of a mesh, present or not."""

import dataclasses
import enum
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from ringrl.ops import AttentionConfig, Kernel, Strategy, attention
from ringrl.ops.sharded import BATCH_AXES, SEQUENCE_AXES
from ringrl.training.compiler_flags import compiler_flags


class Program(enum.StrEnum):
    """The program to compile."""

    forward = "forward"
    gradient = "gradient"  # forward and backward
    layers = "layers"  # a scan over rematerialized layers, forward and backward


@dataclasses.dataclass(frozen=True)
class AttentionSizes:
    """Sizes of attention over one chain in bfloat16; `tokens` are those of one device."""

    tokens: int = 4096
    heads: int = 8
    key_heads: int = 8
    head_size: int = 128
    block_size: int = 1024
    layers: int = 4


def compile_attention(
    mesh: jax.sharding.Mesh,
    program: Program = Program.gradient,
    sizes: AttentionSizes = AttentionSizes(),
    *,
    kernel: Kernel = Kernel.xla,
    flags: bool = True,
) -> Any:
    """Compile ring attention over a mesh; text and memory of the result can be read.

    `flags`: use the trainer's compiler flags for these devices.
    """
    block = sizes.block_size
    config = AttentionConfig(Strategy.ring, kernel=kernel, query_block_size=block, key_block_size=block)
    tokens = NamedSharding(mesh, PartitionSpec(BATCH_AXES, SEQUENCE_AXES))
    chains = mesh.shape["data"] * mesh.shape["fsdp"]
    length = sizes.tokens * mesh.shape["ring"] * mesh.shape["head"]

    def array(*shape: int, dtype: Any = jnp.bfloat16) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((chains, length, *shape), dtype, sharding=tokens)

    def forward(query, key, value, positions, segments):
        labels = {"positions": positions, "segment_ids": segments}
        return attention(query, key, value, config=config, mesh=mesh, **labels)

    def layers(query, key, value, positions, segments):
        @jax.checkpoint
        def layer(x, _):
            return x + forward(x, key, value, positions, segments), None

        return jax.lax.scan(layer, query, length=sizes.layers)[0]

    def gradient(output_gradient, query, key, value, *labels):  # an argument: compilers simplify constant gradients
        output = layers if program is Program.layers else forward
        _, pull_back = jax.vjp(lambda *arrays: output(*arrays, *labels), query, key, value)
        return pull_back(output_gradient)

    query = array(sizes.heads, sizes.head_size)
    key = array(sizes.key_heads, sizes.head_size)
    label = array(dtype=jnp.int32)
    arguments = (query, key, key, label, label)
    function, arguments = (forward, arguments) if program is Program.forward else (gradient, (query, *arguments))
    jitted = jax.jit(function, compiler_options=compiler_flags(mesh) if flags else None)
    return jitted.lower(*arguments).compile()
