"""Behavior cloning: the observation alone, with the same backbone and trainer as the rest."""

import dataclasses
from typing import Any

from ringrl.agents.config import AgentConfig
from ringrl.agents.sequence_agent import SequenceAgent
from ringrl.types import Context


class BehaviorCloning(SequenceAgent):
    """A step sees itself: observation to action. BC-10 % is the same on the top tenth of episodes."""

    contexts = (Context.step,)

    def __init__(self, config: AgentConfig, *arguments: Any, **options: Any):
        alone = dataclasses.replace(config, token_layout="observation", timestep_embedding=False)
        super().__init__(dataclasses.replace(alone, trajectory_embedding=False), *arguments, **options)
