"""RingRL: long-context reinforcement learning on Ring Attention, in JAX.

The public API is listed in `__all__` and described in docs/library.md. Everything else may change.
"""

from typing import TYPE_CHECKING

from ringrl.lazy import on_demand

if TYPE_CHECKING:
    from ringrl.agents.config import ActionHead as ActionHead
    from ringrl.agents.config import AgentConfig as AgentConfig
    from ringrl.agents.config import AgentName as AgentName
    from ringrl.agents.making import make_agent as make_agent
    from ringrl.data.chains import ChainSampler as ChainSampler
    from ringrl.data.config import ChainConfig as ChainConfig
    from ringrl.data.config import DataConfig as DataConfig
    from ringrl.data.config import Order as Order
    from ringrl.data.config import Source as Source
    from ringrl.data.config import Supervise as Supervise
    from ringrl.data.datasets import open_dataset as open_dataset
    from ringrl.data.loader import make_loader as make_loader
    from ringrl.data.normalization import fit_normalization as fit_normalization
    from ringrl.data.statistics import default_target_return as default_target_return
    from ringrl.data.store import EpisodeStore as EpisodeStore
    from ringrl.errors import RingRLError as RingRLError
    from ringrl.evaluation.config import WhenFull as WhenFull
    from ringrl.evaluation.gymnasium_policy import Policy as Policy
    from ringrl.evaluation.policy import ActingConfig as ActingConfig
    from ringrl.evaluation.policy import make_policy as make_policy
    from ringrl.evaluation.rollout import rollout as rollout
    from ringrl.evaluation.scores import score as score
    from ringrl.nn.config import Feedforward as Feedforward
    from ringrl.nn.config import ModelConfig as ModelConfig
    from ringrl.nn.config import Remat as Remat
    from ringrl.ops.config import AttentionConfig as AttentionConfig
    from ringrl.ops.config import Kernel as Kernel
    from ringrl.ops.config import Layout as Layout
    from ringrl.ops.config import Strategy as Strategy
    from ringrl.ops.decode import decode_attention as decode_attention
    from ringrl.ops.dispatch import attention as attention
    from ringrl.ops.feedforward import blockwise_feedforward as blockwise_feedforward
    from ringrl.ops.layouts import dealing_order as dealing_order
    from ringrl.ops.layouts import undealing_order as undealing_order
    from ringrl.parallel.mesh import make_mesh as make_mesh
    from ringrl.runs.batches import make_batches as make_batches
    from ringrl.runs.policy import load_policy as load_policy
    from ringrl.runs.record import describe_run as describe_run
    from ringrl.training.checkpoint import Checkpointer as Checkpointer
    from ringrl.training.config import OptimizerConfig as OptimizerConfig
    from ringrl.training.config import Precision as Precision
    from ringrl.training.config import Schedule as Schedule
    from ringrl.training.config import TrainingConfig as TrainingConfig
    from ringrl.training.loop import train as train
    from ringrl.training.state import create_state as create_state
    from ringrl.types import Chain as Chain
    from ringrl.types import Context as Context

__version__ = "0.1.0"

__all__ = [
    "ActingConfig",
    "ActionHead",
    "AgentConfig",
    "AgentName",
    "AttentionConfig",
    "Chain",
    "ChainConfig",
    "ChainSampler",
    "Checkpointer",
    "Context",
    "DataConfig",
    "EpisodeStore",
    "Feedforward",
    "Kernel",
    "Layout",
    "ModelConfig",
    "OptimizerConfig",
    "Order",
    "Policy",
    "Precision",
    "Remat",
    "RingRLError",
    "Schedule",
    "Source",
    "Strategy",
    "Supervise",
    "TrainingConfig",
    "WhenFull",
    "attention",
    "blockwise_feedforward",
    "create_state",
    "dealing_order",
    "decode_attention",
    "default_target_return",
    "describe_run",
    "fit_normalization",
    "load_policy",
    "make_agent",
    "make_batches",
    "make_loader",
    "make_mesh",
    "make_policy",
    "open_dataset",
    "rollout",
    "score",
    "train",
    "undealing_order",
]

__getattr__ = on_demand(
    globals(),
    {
        "agents.config": "ActionHead AgentConfig AgentName",
        "agents.making": "make_agent",
        "data.chains": "ChainSampler",
        "data.config": "ChainConfig DataConfig Order Source Supervise",
        "data.datasets": "open_dataset",
        "data.loader": "make_loader",
        "data.normalization": "fit_normalization",
        "data.statistics": "default_target_return",
        "data.store": "EpisodeStore",
        "errors": "RingRLError",
        "evaluation.config": "WhenFull",
        "evaluation.gymnasium_policy": "Policy",
        "evaluation.policy": "ActingConfig make_policy",
        "evaluation.rollout": "rollout",
        "evaluation.scores": "score",
        "nn.config": "Feedforward ModelConfig Remat",
        "ops.config": "AttentionConfig Kernel Layout Strategy",
        "ops.decode": "decode_attention",
        "ops.dispatch": "attention",
        "ops.feedforward": "blockwise_feedforward",
        "ops.layouts": "dealing_order undealing_order",
        "parallel.mesh": "make_mesh",
        "runs.batches": "make_batches",
        "runs.policy": "load_policy",
        "runs.record": "describe_run",
        "training.checkpoint": "Checkpointer",
        "training.config": "OptimizerConfig Precision Schedule TrainingConfig",
        "training.loop": "train",
        "training.state": "create_state",
        "types": "Chain Context",
    },
)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
