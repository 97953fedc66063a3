"""The Agentic Transformer: learns from chains of hindsight, acts with its earlier trials in context."""

from ringrl.agents.sequence_agent import SequenceAgent
from ringrl.types import Context


class AgenticTransformer(SequenceAgent):
    """A step sees every earlier trajectory of its chain (Liu and Abbeel 2023, arXiv 2305.16554).

    `context=trial` is the control that trains on the same chains but sees the current trial alone.
    """

    contexts = (Context.chain, Context.trial)
