"""Metadata of a checkpoint, from which its agent can be rebuilt and act."""

import json
from collections.abc import Mapping
from typing import Any

from ringrl.agents import SequenceAgent
from ringrl.config import TrainCommand
from ringrl.config.schema import as_plain
from ringrl.data import ChainSampler, default_target_return
from ringrl.data.config import DataConfig, Source
from ringrl.data.store_format import spec_to_json
from ringrl.parallel.config import AXES, MeshConfig
from ringrl.runs.batches import check_alike
from ringrl.training.config import TrainingConfig

REFERENCES = ("ref_min_score", "ref_max_score", "reference_scores")  # of a data set's metadata, in every checkpoint


def describe_run(
    agent: SequenceAgent,
    sampler: ChainSampler,
    training: TrainingConfig,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """The metadata with which `train` saves a run, so that `load_policy` and `ringrl eval` act from it alone.

    The environment is the one in the data's metadata; if there is none, `ringrl eval` requires `env.id`.

    Args:
        agent: the trained agent.
        sampler: the sampler of its training data.
        training: the settings passed to `train`.
        seed: the seed passed to `create_state` and `make_batches`.

    Returns:
        Plain JSON: every setting, sizes and scales of the data, the environment, and the target return.

    Raises:
        RingRLError: agent, sampler and training are inconsistent.
    """
    check_alike(agent, sampler, training)
    store = sampler.store
    command = TrainCommand(
        seed=seed,
        agent=agent.config,
        model=agent.model_config,
        attention=agent.attention_config,
        mesh=MeshConfig() if agent.mesh is None else MeshConfig(**{axis: agent.mesh.shape[axis] for axis in AXES}),
        chain=sampler.config,
        data=DataConfig(source=Source.store, name=str(store.path)),
        training=training,
    )
    references = {name: store.metadata.get(name) for name in REFERENCES}
    return run_record(
        as_plain(command), sampler, _environment(store.metadata), default_target_return(store), references
    )


def run_record(
    config: Mapping[str, Any],
    sampler: ChainSampler,
    environment: Mapping[str, Any],
    target_return: float,
    references: Mapping[str, Any],
) -> dict[str, Any]:
    """The metadata that `ringrl.runs.agent.load_agent` reads, as plain JSON.

    Args:
        config: a whole `TrainCommand` as plain containers.
        sampler: the sampler of the training data.
        environment: `environment`, {"id": ..., "kwargs": ...}, and `environment_spec`, gymnasium's whole record.
        target_return: the target return, unscaled.
        references: the returns that count as 0 and 100, by the names in `REFERENCES`.
    """
    return {
        "config": dict(config),
        "spec": spec_to_json(sampler.store.spec),
        "normalization": sampler.normalization.to_json(),
        **environment,
        "chain_steps": sampler.steps,
        "target_return": target_return,
        "data_fingerprint": sampler.store.fingerprint,
        **references,
    }


def _environment(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The environment in a data set's metadata, in the format of a checkpoint."""
    record = metadata.get("environment_spec") or {}
    record = json.loads(record) if isinstance(record, str) else dict(record)
    told = {"id": metadata.get("environment") or "", "kwargs": record.get("kwargs") or {}}
    return {"environment": told, "environment_spec": record}
