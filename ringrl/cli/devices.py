"""The devices of a run: its mesh, the sharding of its state, and gathering of parameters."""

import logging
from typing import Any

import jax
from jax.experimental import multihost_utils
from rich.console import Console
from rich.table import Column, Table

from ringrl.agents import SequenceAgent
from ringrl.cli.console import output, table_width
from ringrl.errors import RingRLError
from ringrl.ops import AttentionConfig
from ringrl.parallel import MeshConfig, make_mesh
from ringrl.parallel.sharding import bytes_per_device, explain
from ringrl.training.compiler_flags import compiler_flags, describe_flags
from ringrl.training.config import TrainingConfig
from ringrl.training.state import state_shapes
from ringrl.types import Parameters

_logger = logging.getLogger(__name__)


def make_run_mesh(config: MeshConfig, attention: AttentionConfig) -> jax.sharding.Mesh | None:
    """The mesh of a run; None for one device. Raises RingRLError as `make_mesh`, and if a process would be idle."""
    spread = any(size != 1 for size in config.sizes.values())
    return full_mesh(config) if spread or attention.strategy.is_sharded or jax.process_count() > 1 else None


def full_mesh(config: MeshConfig) -> jax.sharding.Mesh:
    """The mesh that a config describes; raises RingRLError as `make_mesh` does, and if it leaves out a process."""
    mesh = make_mesh(**config.sizes)
    if jax.process_count() > 1 and mesh.size != jax.device_count():
        raise RingRLError(
            f"{jax.process_count()} processes have {jax.device_count()} devices and the mesh takes {mesh.size}: set "
            "one axis to -1 (mesh.ring=-1 with attention=ring, or mesh.fsdp=-1), so that no process is left out."
        )
    return mesh


def gather_parameters(parameters: Parameters) -> Parameters:
    """Gather whole parameters on this process's first device; a collective."""
    if jax.process_count() > 1:
        parameters = multihost_utils.process_allgather(parameters, tiled=True)
    return jax.device_put(parameters, jax.local_devices()[0])


def show_compiler_flags(mesh: jax.sharding.Mesh, console: Console) -> None:
    """Print the compiler flags that `make_train_step` uses for these devices, if any, on the console and in the log."""
    if flags := compiler_flags(mesh):
        line = describe_flags(mesh, flags)
        console.print(line)
        _logger.info(line)


def print_explanation(agent: SequenceAgent, training: TrainingConfig) -> None:
    """`mesh.explain=true`: print the sharding of every array of the training state, and its size per device."""
    console, mesh = output(), agent.mesh
    state = state_shapes(agent, training)
    if mesh is None:
        console.print(f"No mesh: one device holds the whole state, {bytes_per_device(state, None):,} bytes.")
        return
    table = Table(Column("array", no_wrap=True), "shape", "dtype", "split over", "bytes per device")
    for placed in explain(state, mesh):
        shape = " x ".join(map(str, placed.shape)) or "scalar"
        table.add_row(placed.path, shape, placed.dtype, _words(placed.spec), f"{placed.bytes_per_device:,}")
    wide = output(max(table_width(console), 160))
    wide.print(table)
    axes = " ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    whole = bytes_per_device(state, None)
    wide.print(f"mesh {axes}: {bytes_per_device(state, mesh):,} bytes on each of {mesh.size} devices; whole {whole:,}.")


def _words(spec: Any) -> str:
    """Format `P(None, ('fsdp', 'ring'))` as "dimension 1: fsdp x ring"."""
    split = [(dimension, entry) for dimension, entry in enumerate(spec) if entry is not None]
    if not split:
        return "-"
    named = (f"dimension {dimension}: {' x '.join([e] if isinstance(e, str) else e)}" for dimension, e in split)
    return ", ".join(named)
