"""The Agentic Transformer, trained on chains of hindsight and run with its earlier trials in context."""

from ringrl.agents.sequence_agent import SequenceAgent
from ringrl.types import Context


class AgenticTransformer(SequenceAgent):
    """Each step attends to every earlier trajectory of its chain (Liu and Abbeel 2023, arXiv 2305.16554).

    `context=trial` is the control: it trains on the same chains, but each step attends to its own trial alone.
    """

    contexts = (Context.chain, Context.trial)
