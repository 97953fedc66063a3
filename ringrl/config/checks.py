"""Checks of a command's configuration across packages."""

from ringrl.agents.config import AgentConfig, AgentName
from ringrl.data.config import ChainConfig
from ringrl.errors import RingRLError
from ringrl.ops.automatic import settle_on_mesh
from ringrl.ops.config import AttentionConfig
from ringrl.parallel.config import MeshConfig
from ringrl.types import SEQUENCE_AXES, Context

CONTEXT_OF_AGENT = {AgentName.dt: Context.trial, AgentName.bc: Context.step, AgentName.bc10: Context.step}


def check_name(name: str) -> None:
    """Check that a run's name is valid as a folder name and stays within the runs' folder."""
    if not name or name.startswith(".") or any(character in name for character in "/\\\0"):
        raise RingRLError(f"name={name!r}: a plain folder name is needed.")


def check_seed(seed: int | None, key: str = "seed") -> None:
    """Check that a seed is valid for NumPy, JAX and Gymnasium; null means none."""
    if seed is not None and not 0 <= seed < 2**31:
        raise RingRLError(f"{key}={seed}: use 0 to {2**31 - 1}.")


def check_agent_context(agent: AgentConfig, chain: ChainConfig) -> None:
    """Check the context of an agent: DT uses its own trial, BC one step; AT may use either (its controls)."""
    expected = CONTEXT_OF_AGENT.get(agent.name)
    if expected is not None and chain.context != expected:
        raise RingRLError(
            f"agent={agent.name} sees one {expected}, but chain.context={chain.context}: "
            f"set chain.context={expected}, or choose agent=at."
        )


def check_trajectory_embedding(agent: AgentConfig, chain: ChainConfig) -> None:
    """Check that the trajectory embedding has a row for each trajectory of a chain."""
    if agent.trajectory_embedding and chain.trajectories > agent.max_trajectories:
        raise RingRLError(
            f"chain.trajectories={chain.trajectories} is more than agent.max_trajectories={agent.max_trajectories}: "
            "raise the latter."
        )


def check_mesh(attention: AttentionConfig, mesh: MeshConfig) -> None:
    """Check that the attention strategy uses mesh.ring and mesh.head: only some shard a sequence."""
    chosen = " ".join(f"mesh.{axis}={size}" for axis in SEQUENCE_AXES if (size := getattr(mesh, axis)) != 1)
    if chosen and not settle_on_mesh(attention, mesh.sizes).strategy.is_sharded:
        raise RingRLError(
            f"{chosen} with attention.strategy={attention.strategy}, which keeps a chain on one device: "
            "choose attention=ring, ulysses or hybrid, or spread batch and parameters alone, by mesh.fsdp or mesh.data."
        )
