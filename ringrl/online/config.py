"""Configuration of an online learner."""

import dataclasses
import enum

from ringrl.errors import RingRLError, parse_choice


class RewardKind(enum.StrEnum):
    """The maximized reward: the environment's own, or the novelty of observations (`ringrl.online.rnd`)."""

    environment = "environment"
    rnd = "rnd"


@dataclasses.dataclass(frozen=True)
class SacConfig:
    """Soft actor-critic, with defaults that make data of graded quality on two CPU cores in minutes."""

    reward: RewardKind = RewardKind.environment
    width: int = 128  # of the hidden layers of actor and critics
    layers: int = 2  # hidden layers of actor and critics
    batch_size: int = 128  # transitions in an update
    learning_rate: float = 1e-3  # of actor, critics and temperature
    discount: float = 0.99  # of a reward one step later
    target_rate: float = 0.005  # fraction by which target critics move to the critics at each update (Polyak)
    initial_temperature: float = 0.2  # weight of the entropy at the start
    target_entropy: float = -1.0  # nats per action dimension, of actions scaled to [-1, 1]
    random_steps: int = 2_000  # environment steps with uniform actions and without updates
    updates_per_step: float = 1.0  # gradient steps per environment step
    updates_per_call: int = 32  # gradient steps in one dispatch; actions lag by at most two dispatches
    replay_capacity: int = 1_000_000  # transitions
    rnd_width: int = 128  # behavior=rnd: width of its two networks
    rnd_features: int = 64  # behavior=rnd: size of their outputs
    rnd_learning_rate: float = 1e-4  # behavior=rnd: learning rate of the predictor

    def __post_init__(self) -> None:
        parse_choice("reward", self.reward, RewardKind)
        whole = ("width", "layers", "batch_size", "updates_per_call", "replay_capacity", "rnd_width", "rnd_features")
        for name in whole:
            if getattr(self, name) < 1:
                raise RingRLError(f"{name}={getattr(self, name)} must be at least 1.")
        for name in ("learning_rate", "rnd_learning_rate", "initial_temperature"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise RingRLError(f"{name}={getattr(self, name)} must be positive and finite.")
        if not 0.0 <= self.discount < 1.0:
            raise RingRLError(f"discount={self.discount} is not in [0, 1).")
        if not 0.0 < self.target_rate <= 1.0:
            raise RingRLError(f"target_rate={self.target_rate} is not in (0, 1].")
        if self.random_steps < 1:
            raise RingRLError(f"random_steps={self.random_steps} must be at least 1: updates need data.")
        if not 0.0 <= self.updates_per_step < float("inf"):
            raise RingRLError(f"updates_per_step={self.updates_per_step} must be at least 0 and finite.")
