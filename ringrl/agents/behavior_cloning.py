"""Behavior cloning from the observation alone, with the backbone and trainer of the other agents."""

import dataclasses
from typing import Any

from ringrl.agents.config import AgentConfig
from ringrl.agents.sequence_agent import SequenceAgent
from ringrl.types import Context


class BehaviorCloning(SequenceAgent):
    """Each step attends to itself alone. BC-10 % is the same agent trained on the best tenth of the episodes."""

    contexts = (Context.step,)

    def __init__(self, config: AgentConfig, *arguments: Any, **options: Any):
        alone = dataclasses.replace(config, token_layout="observation", timestep_embedding=False)
        super().__init__(dataclasses.replace(alone, trajectory_embedding=False), *arguments, **options)
