"""Compact online learners that make data: soft actor-critic on an environment's reward, or on curiosity alone."""

from ringrl.online.actor_files import load_actor, save_actor
from ringrl.online.actors import Actor, actor_of
from ringrl.online.behavior import ActorBehavior
from ringrl.online.config import RewardKind, SacConfig
from ringrl.online.episodes import OnlineEpisode
from ringrl.online.learn import learn_online
from ringrl.online.replay import Replay, Transitions
from ringrl.online.sac import SacState, create_state, update
from ringrl.online.spaces import Spaces, spaces_of

__all__ = [
    "Actor",
    "ActorBehavior",
    "OnlineEpisode",
    "Replay",
    "RewardKind",
    "SacConfig",
    "SacState",
    "Spaces",
    "Transitions",
    "actor_of",
    "create_state",
    "learn_online",
    "load_actor",
    "save_actor",
    "spaces_of",
    "update",
]
