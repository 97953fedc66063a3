"""The Decision Transformer: one trajectory's last steps, conditioned on the return to go."""

from ringrl.agents.sequence_agent import SequenceAgent
from ringrl.types import Context


class DecisionTransformer(SequenceAgent):
    """A step sees the last K steps of its own trial (Chen et al. 2021, arXiv 2106.01345)."""

    contexts = (Context.trial,)
