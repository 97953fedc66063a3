"""The Decision Transformer: conditioned on the return-to-go, over the last steps of one trajectory."""

from ringrl.agents.sequence_agent import SequenceAgent
from ringrl.types import Context


class DecisionTransformer(SequenceAgent):
    """Each step attends to the last K steps of its own trial (Chen et al. 2021, arXiv 2106.01345)."""

    contexts = (Context.trial,)
