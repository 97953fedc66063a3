"""RingRL: long-context reinforcement learning on Ring Attention, in JAX."""

__version__ = "0.1.0"
