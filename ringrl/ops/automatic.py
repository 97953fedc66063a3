"""The choice of `attention.strategy=auto`: by the mesh if it asks for one, else by the size of a call's scores."""

import dataclasses
import math
from collections.abc import Mapping

from ringrl.ops.config import AttentionConfig, Kernel, Strategy
from ringrl.ops.notes import log_once

DENSE_TOKENS = 48  # of a chain, up to which dense is the faster (measured on a CPU: 0.9 of the time at 32, 1.25 at 64)
DENSE_BYTES = 2**24  # of the scores of one layer in float32, of which dense attention holds several


def settle_on_mesh(config: AttentionConfig, sizes: Mapping[str, int]) -> AttentionConfig:
    """`auto` by a mesh of these sizes: ring or ulysses or both where an axis has more than one device (-1: those left).

    A chain that stays on one device leaves `auto` as it is, to be settled call by call. The log says which.
    """
    if config.strategy is not Strategy.auto:
        return config
    spread = sizes.get("ring", 1) != 1, sizes.get("head", 1) != 1
    strategies = {(True, False): Strategy.ring, (False, True): Strategy.ulysses, (True, True): Strategy.hybrid}
    strategy = strategies.get(spread, Strategy.auto)
    if strategy is not Strategy.auto:
        asked = " and ".join(f"mesh.{axis}={sizes[axis]}" for axis in ("ring", "head") if sizes.get(axis, 1) != 1)
        log_once(f"attention.strategy=auto: {strategy}, because of {asked}.")
    return dataclasses.replace(config, strategy=strategy)


def settle_by_size(config: AttentionConfig, chains: int, tokens: int, heads: int) -> AttentionConfig:
    """`auto` on one device: dense for few and short chains, where it is faster, else blockwise; the log says which."""
    if config.strategy is not Strategy.auto:
        return config
    scores = 4 * math.prod((chains, heads, tokens, tokens))
    if config.kernel in (Kernel.cudnn, Kernel.pallas):
        strategy, reason = Strategy.blockwise, f"attention.kernel={config.kernel} is asked for"
    elif tokens <= DENSE_TOKENS and scores <= DENSE_BYTES:
        strategy, reason = Strategy.dense, f"chains of {tokens} tokens have scores of {scores / 2**20:.1f} MiB a layer"
    else:
        strategy = Strategy.blockwise
        reason = (
            f"dense is for at most {DENSE_TOKENS} tokens and {DENSE_BYTES // 2**20} MiB of scores a layer, and "
            f"{chains} chains of {tokens} tokens have {scores / 2**20:,.1f} MiB"
        )
    log_once(f"attention.strategy=auto: {strategy}, because {reason}.")
    return dataclasses.replace(config, strategy=strategy)
