"""The length of the history given to a trained agent that collects data."""

import numpy as np
import pytest
import ringrl_envs

from ringrl.cli import behaviors
from ringrl.config import EnvConfig, TrainCommand
from ringrl.config.schema import build
from ringrl.runs.agent import LoadedAgent, make_run_agent
from ringrl.types import ActionKind, ActionSpec, DataSpec, Normalization

SPEC = DataSpec(2, ActionSpec(ActionKind.discrete, 5), max_episode_steps=50)
DT = {"agent": {"name": "dt"}, "chain": {"context": "trial", "trajectories": 1, "window_steps": 20, "relabel": False}}
BC = {"agent": {"name": "bc", "return_to_go": False}, "chain": {"context": "step", "trajectories": 1}}


@pytest.mark.parametrize(("values", "expected"), [({}, 50), (DT, 20), (BC, 1)])
def test_it_remembers_no_more_than_it_learned_and_no_more_than_an_episode(monkeypatch, values, expected):
    command = build(TrainCommand, values)
    scales = Normalization(np.zeros(2, np.float32), np.ones(2, np.float32))
    loaded = LoadedAgent(command, make_run_agent(command, SPEC), {}, scales, EnvConfig(), 400, 1.0, {})
    monkeypatch.setattr(behaviors, "load_agent", lambda checkpoint: loaded)
    environments = ringrl_envs.make_vector("ringrl/DarkRoom-v0", 2)
    behavior = behaviors.CheckpointBehavior("run", environments, seed=0)
    assert behavior._policy.history.capacity == expected
