"""Compact online learners that generate data: soft actor-critic on an environment's reward, or on curiosity alone."""

from typing import TYPE_CHECKING

from ringrl.lazy import on_demand

if TYPE_CHECKING:
    from ringrl.online.actor_files import load_actor as load_actor
    from ringrl.online.actor_files import save_actor as save_actor
    from ringrl.online.actors import Actor as Actor
    from ringrl.online.actors import extract_actor as extract_actor
    from ringrl.online.behavior import ActorBehavior as ActorBehavior
    from ringrl.online.config import RewardKind as RewardKind
    from ringrl.online.config import SacConfig as SacConfig
    from ringrl.online.episodes import OnlineEpisode as OnlineEpisode
    from ringrl.online.learn import learn_online as learn_online
    from ringrl.online.replay import Replay as Replay
    from ringrl.online.replay import Transitions as Transitions
    from ringrl.online.sac import SacState as SacState
    from ringrl.online.sac import create_state as create_state
    from ringrl.online.sac import update as update
    from ringrl.online.spaces import Spaces as Spaces
    from ringrl.online.spaces import read_spaces as read_spaces

__getattr__ = on_demand(
    globals(),
    {
        "actor_files": "load_actor save_actor",
        "actors": "Actor extract_actor",
        "behavior": "ActorBehavior",
        "config": "RewardKind SacConfig",
        "episodes": "OnlineEpisode",
        "learn": "learn_online",
        "replay": "Replay Transitions",
        "sac": "SacState create_state update",
        "spaces": "Spaces read_spaces",
    },
)
