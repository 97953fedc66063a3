"""Pure functions on arrays: attention by every strategy, and its parts."""

from typing import TYPE_CHECKING

from ringrl.lazy import on_demand

if TYPE_CHECKING:
    from ringrl.ops.config import AttentionConfig as AttentionConfig
    from ringrl.ops.config import Kernel as Kernel
    from ringrl.ops.config import Layout as Layout
    from ringrl.ops.config import Strategy as Strategy
    from ringrl.ops.decode import decode_attention as decode_attention
    from ringrl.ops.dispatch import attention as attention
    from ringrl.ops.feedforward import blockwise_feedforward as blockwise_feedforward
    from ringrl.ops.layouts import check_dealt as check_dealt
    from ringrl.ops.layouts import dealing_order as dealing_order
    from ringrl.ops.layouts import undealing_order as undealing_order
    from ringrl.ops.sharded import ring_size as ring_size
    from ringrl.ops.sharded import step_order as step_order

__getattr__ = on_demand(
    globals(),
    {
        "config": "AttentionConfig Kernel Layout Strategy",
        "decode": "decode_attention",
        "dispatch": "attention",
        "feedforward": "blockwise_feedforward",
        "layouts": "check_dealt dealing_order undealing_order",
        "sharded": "ring_size step_order",
    },
)
